package service_test

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The acts of the property are durable transactions, so few checks run by default; use
// -rapid.checks for more.
func init() { flag.Set("rapid.checks", "10") }

func (w testService) registerIn(geo, name string) (api.Policy, error) {
	in := register(w.newKey("A-"+name), w.newKey("B-"+name))
	in.Body.Geo = geo
	return w.RegisterSites(w.ctx, in)
}

func (w testService) showSite(url string) api.Site {
	w.Helper()
	s, err := w.ShowSite(w.ctx, site(url))
	w.Must(err)
	return s
}

func (w testService) geos() map[string]api.Geo {
	w.Helper()
	list, err := w.ListGeos(w.ctx, api.ListInput{})
	w.Must(err)
	all := map[string]api.Geo{}
	for _, g := range list.Items {
		all[g.Name] = g
	}
	return all
}

func TestNewSiteIsInTheGeoOfItsHost(t *testing.T) {
	each(t, func(w testService) {
		const before = "https://contoso-eu.sharepoint.com/sites/before"
		w.Must(e(w.CreateSite(w.ctx, newSite(before))))
		created, err := w.CreateGeo(w.ctx, newGeo("EU", "Contoso-EU.sharepoint.com:443", "intranet.contoso.eu:8443"))
		w.Must(err)
		if want := []string{"contoso-eu.sharepoint.com", "intranet.contoso.eu:8443"}; !slices.Equal(created.Hosts, want) || created.Default || created.Policy != "" {
			t.Errorf("%+v, want hosts %v", created, want)
		}
		for url, geo := range map[string]string{
			"https://CONTOSO-eu.sharepoint.com/sites/a":   "EU",
			"https://contoso-eu-admin.sharepoint.com":     "EU",
			"https://intranet.contoso.eu:8443":            "EU",
			"https://intranet.contoso.eu":                 "default",
			"https://contoso-eu.sharepoint.com.evil.test": "default",
			"https://contoso.sharepoint.com/sites/a":      "default",
			"https://contoso-admin.sharepoint.com":        "default",
			"https://fabrikam.example/contoso-eu":         "default",
		} {
			s, err := w.CreateSite(w.ctx, newSite(url))
			w.Must(err)
			policy := map[string]string{"EU": "Service-managed-EU", "default": "Service-managed"}[geo]
			if s.Geo != geo || s.Protection.Policy != policy || w.showSite(url).Geo != geo {
				t.Errorf("%s is in %q under %q", url, s.Geo, s.Protection.Policy)
			}
		}
		if s := w.showSite(before); s.Geo != "default" || s.Protection.Policy != "Service-managed" {
			t.Errorf("a site from before the geo is in %q under %q", s.Geo, s.Protection.Policy)
		}
		if geos := w.geos(); len(geos) != 2 || !geos["default"].Default || geos["default"].Sites != 6 || geos["EU"].Sites != 3 {
			t.Errorf("%+v", geos)
		}
	})
}

func TestRegisteringAGeoMovesItsSitesAndNoOthers(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateGeo(w.ctx, newGeo("EU", "contoso-eu.sharepoint.com"))))
		w.Must(e(w.CreateGeo(w.ctx, newGeo("Asia", "contoso-apc.sharepoint.com"))))
		hosts := map[string]string{"default": "contoso.sharepoint.com", "EU": "contoso-eu.sharepoint.com", "Asia": "contoso-apc.sharepoint.com"}
		url := func(geo string, i int) string { return fmt.Sprintf("https://%s/sites/%d", hosts[geo], i) }
		for i := range 6 { // more than a page of each, made in turn
			for geo := range hosts {
				w.Must(e(w.CreateSite(w.ctx, newSite(url(geo, i)))))
			}
		}
		under := func(geo, policy string) {
			t.Helper()
			for i := range 6 {
				if s := w.showSite(url(geo, i)); s.Protection.Policy != policy || !s.Protection.Current {
					t.Errorf("%s is under %q", s.URL, s.Protection.Policy)
				}
			}
		}
		eu, err := w.registerIn("https://contoso-eu-admin.sharepoint.com", "EU")
		w.Must(err)
		if eu.Name != "Sites-EU" || eu.Geo != "EU" || eu.State != api.Registering || eu.Roll.Total != 6 || eu.Roll.Remaining != 6 {
			t.Errorf("%+v of roll %+v", eu, eu.Roll)
		}
		under("EU", "Service-managed-EU")
		w.Must(e(w.CreateSite(w.ctx, newSite("https://contoso-eu.sharepoint.com/sites/new"))))
		w.finishRolls()
		under("EU", "Sites-EU")
		under("Asia", "Service-managed-Asia")
		under("default", "Service-managed")
		if s := w.showSite("https://contoso-eu.sharepoint.com/sites/new"); s.Protection.Policy != "Sites-EU" {
			t.Errorf("a site made while the roll ran is under %q", s.Protection.Policy)
		}

		sites, err := w.registerIn("", "Sites")
		w.Must(err)
		if sites.Name != "Sites" || sites.Geo != "default" || sites.Roll.Total != 6 {
			t.Errorf("%+v of roll %+v", sites, sites.Roll)
		}
		w.finishRolls()
		under("default", "Sites")
		under("EU", "Sites-EU")
		under("Asia", "Service-managed-Asia")

		// The URL of an admin site names the policy of its geo.
		updated, err := w.UpdatePolicy(w.ctx, update("https://contoso-eu-admin.sharepoint.com", "primary", w.newKey("A-EU")))
		w.Must(err)
		if updated.Policy.Name != "Sites-EU" || updated.Policy.Roll.Total != 7 {
			t.Errorf("%+v", updated.Policy)
		}
		w.finishRolls()
		under("EU", "Sites-EU")
		for url, name := range map[string]string{"https://contoso-admin.sharepoint.com": "Sites", "https://contoso-eu-admin.sharepoint.com/": "Sites-EU", "https://other.example": "Sites"} {
			if p, err := w.ShowPolicy(w.ctx, api.PolicyInput{Policy: url}); err != nil || p.Name != name {
				t.Errorf("%s names %q, %v", url, p.Name, err)
			}
		}
		policytest.Refuses(t, e(w.ShowPolicy(w.ctx, api.PolicyInput{Policy: "https://contoso-apc-admin.sharepoint.com"})), api.NotFound)
		policytest.Refuses(t, e(w.registerIn("eu", "EU")), api.AlreadyExists)
		policytest.Refuses(t, e(w.registerIn("nowhere", "EU")), api.NotFound)
		if geos := w.geos(); geos["EU"].Policy != "Sites-EU" || geos["default"].Policy != "Sites" || geos["Asia"].Policy != "" {
			t.Errorf("%+v", geos)
		}
	})
}

func TestInvalidGeosAreRefused(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateGeo(w.ctx, newGeo("EU", "contoso-eu.sharepoint.com"))))
		before := w.state()
		for _, c := range []struct {
			name  string
			hosts []string
			code  api.Code
		}{
			{"eu", []string{"a.example"}, api.AlreadyExists},
			{"Default", []string{"a.example"}, api.AlreadyExists},
			{"", []string{"a.example"}, api.InvalidArgument},
			{"a/b", []string{"a.example"}, api.InvalidArgument},
			{" a", []string{"a.example"}, api.InvalidArgument},
			{"Asia", nil, api.InvalidArgument},
			{"Asia", []string{""}, api.InvalidArgument},
			{"Asia", []string{"a.example/sites"}, api.InvalidArgument},
			{"Asia", []string{"https://a.example"}, api.InvalidArgument},
			{"Asia", []string{"user@a.example"}, api.InvalidArgument},
			{"Asia", []string{"a.example", "A.example:443"}, api.InvalidArgument},
			{"Asia", []string{"a-admin.sharepoint.com"}, api.InvalidArgument},
			{"Asia", []string{"a.example", "CONTOSO-EU.sharepoint.com"}, api.AlreadyExists},
		} {
			policytest.Refuses(t, e(w.CreateGeo(w.ctx, newGeo(c.name, c.hosts...))), c.code)
		}
		w.newKey("A-p")
		w.newKey("B-p")
		for _, name := range []string{"sites", "Sites-Asia", "SERVICE-managed", "service-managed-x"} {
			policytest.Refuses(t, e(w.CreatePolicy(w.ctx, newPolicy(name, keyURI("A-p"), keyURI("B-p")))), api.InvalidArgument)
		}
		if w.state() != before {
			t.Error("a refusal changed something")
		}
		w.Must(e(w.CreatePolicy(w.ctx, newPolicy("SitesOfMail", keyURI("A-p"), keyURI("B-p")))))
	})
}

// TestAnySequenceKeepsGeosApart makes geos, sites and site policies and rolls them in any
// order. A site never changes its geo, no key page has sites of two geos, and the
// progress of a roll counts only sites of its own geo.
func TestAnySequenceKeepsGeosApart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		rapid.Check(t, func(r *rapid.T) {
			w := newTestService(p.Neighbour())
			names := []string{"default"}
			sites := map[string][]string{}
			registered := map[string]bool{}
			made := 0
			hostOf := func(geo string) string { return geo + ".sharepoint.com" }
			pick := func(r *rapid.T) string { return rapid.SampledFrom(names).Draw(r, "geo") }
			policyOf := func(geo string) string {
				name := "Service-managed"
				if registered[geo] {
					name = "Sites"
				}
				if geo != "default" {
					name += "-" + geo
				}
				return name
			}
			vault := func(geo string) string { return fmt.Sprint(geo, w.Tenant) }
			r.Repeat(map[string]func(*rapid.T){
				"geo": func(r *rapid.T) {
					name := fmt.Sprint("G", len(names))
					w.Must(e(w.CreateGeo(w.ctx, newGeo(name, hostOf(name)))))
					names = append(names, name)
				},
				"site": func(r *rapid.T) {
					geo := pick(r)
					for range rapid.IntRange(1, 5).Draw(r, "sites") {
						made++
						url := fmt.Sprintf("https://%s/sites/%d", hostOf(geo), made)
						w.Must(e(w.CreateSite(w.ctx, newSite(url))))
						sites[geo] = append(sites[geo], url)
					}
				},
				"register": func(r *rapid.T) {
					geo := pick(r)
					if registered[geo] {
						r.Skip("it has a site policy")
					}
					pol, err := w.registerIn(geo, vault(geo))
					w.Must(err)
					registered[geo] = true
					if pol.Name != policyOf(geo) || pol.Roll.Total != int64(len(sites[geo])) {
						r.Errorf("%s of %s brings %d sites over, want %d", pol.Name, geo, pol.Roll.Total, len(sites[geo]))
					}
				},
				"update": func(r *rapid.T) {
					geo := pick(r)
					if !registered[geo] {
						r.Skip("it has no site policy")
					}
					w.finishRolls()
					done, err := w.UpdatePolicy(w.ctx, update(policyOf(geo), "secondary", w.newKey("B-"+vault(geo))))
					w.Must(err)
					if done.Policy.Roll.Total != int64(len(sites[geo])) {
						r.Errorf("%s brings %d sites over, want %d", done.Policy.Name, done.Policy.Roll.Total, len(sites[geo]))
					}
				},
				"finish": func(r *rapid.T) {
					w.finishRolls()
					for geo, urls := range sites {
						for _, url := range urls {
							if s := w.showSite(url); s.Protection.Policy != policyOf(geo) || !s.Protection.Current {
								r.Errorf("%s of %s is under %s when all rolls have finished", url, geo, s.Protection.Policy)
							}
						}
					}
				},
				"": func(r *rapid.T) {
					for geo, urls := range sites {
						for _, url := range urls {
							s := w.showSite(url)
							if s.Geo != geo || s.Protection.Policy != policyOf(geo) && s.Protection.Policy != "Service-managed" && s.Protection.Policy != "Service-managed-"+geo {
								r.Errorf("%s of %s is in %s under %s", url, geo, s.Geo, s.Protection.Policy)
							}
						}
					}
					var mixed int
					w.View(func(tx *store.Tx) error {
						return tx.QueryRow(w.Ctx, `SELECT COUNT(*) FROM (SELECT page FROM container WHERE tenant = ?1 AND kind = 'site'
							GROUP BY page HAVING COUNT(DISTINCT geo) > 1) AS pages`, w.Tenant).Scan(&mixed)
					})
					if mixed != 0 {
						r.Errorf("%d key pages have sites of two geos", mixed)
					}
				},
			})
		})
	})
}
