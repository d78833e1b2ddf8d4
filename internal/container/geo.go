package container

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Geo is a named part of a tenant. A site belongs to one geo, which is chosen by its
// host when the site is made and never changes.
type Geo struct {
	ID      int64 // 0: the default geo, which has no row
	Name    string
	Hosts   []string  // normalised and sorted; empty for the default geo
	Created time.Time // of the default geo: when the tenant was created
	Damaged []error   // one for each host that cannot be decrypted
}

// DefaultGeo is the name of the geo of all sites whose host belongs to no other geo.
const DefaultGeo = "default"

// mostGeos bounds the geos of a tenant, mostHosts the hosts of a geo.
const (
	mostGeos  = 100
	mostHosts = 100
)

var geoName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z -]{0,30}[0-9A-Za-z])?$`) })

// NewGeo validates name and hosts and returns a geo for AddGeo.
func (s *Containers) NewGeo(name string, hosts []string) (Geo, error) {
	if !geoName().MatchString(name) {
		return Geo{}, fail.New(api.InvalidArgument, "geo name %.300q must be 1 to 32 letters, digits, hyphens and spaces", name)
	}
	if strings.EqualFold(name, DefaultGeo) {
		return Geo{}, fail.New(api.AlreadyExists, "geo %q exists: every tenant has it", DefaultGeo)
	}
	if len(hosts) == 0 || len(hosts) > mostHosts {
		return Geo{}, fail.New(api.InvalidArgument, "geo %q: %d hosts are given; a geo must have 1 to %d", name, len(hosts), mostHosts)
	}
	g := Geo{ID: store.NewID(), Name: name, Created: time.UnixMilli(s.now().UnixMilli())}
	for _, given := range hosts {
		normal, refusal := normalSite("https://" + given)
		host := strings.TrimPrefix(normal, "https://")
		switch {
		case refusal != "" || strings.Contains(host, "/"):
			return Geo{}, fail.New(api.InvalidArgument, "geo %q: %.300q is not a valid host name", name, given)
		case adminSiteOf(host) != "":
			return Geo{}, fail.New(api.InvalidArgument, "geo %q: %q is an admin site", name, given).
				WithHint("give the host of its sites, %s; that includes the admin site", adminSiteOf(host))
		case slices.Contains(g.Hosts, host):
			return Geo{}, fail.New(api.InvalidArgument, "geo %q: host %q is given twice", name, host)
		}
		g.Hosts = append(g.Hosts, host)
	}
	slices.Sort(g.Hosts)
	return g, nil
}

// CheckGeo fails if the name or a host of a geo is already in use. The tenant's
// directory must have been opened before.
func (s *Containers) CheckGeo(ctx context.Context, tx *store.Tx, tenant int64, g Geo) error {
	all, err := s.Geos(ctx, tx, tenant)
	if err != nil {
		return err
	}
	if len(all) > mostGeos {
		return fail.New(api.Conflict, "a tenant can have at most %d geos in addition to the default one", mostGeos)
	}
	for _, other := range all {
		if len(other.Damaged) > 0 { // the damaged host may be one of the new ones
			return other.Damaged[0]
		}
		if strings.EqualFold(other.Name, g.Name) {
			return fail.New(api.AlreadyExists, "geo %q exists", other.Name)
		}
		for _, host := range g.Hosts {
			if slices.Contains(other.Hosts, host) {
				return fail.New(api.AlreadyExists, "host %q already belongs to geo %q", host, other.Name).WithHint("keyroll geo list shows the geos and their hosts")
			}
		}
	}
	return nil
}

// AddGeo adds a geo after CheckGeo, in a transaction that holds the tenant's lock.
// Existing sites on its hosts stay in the geo in which they were made.
func (s *Containers) AddGeo(ctx context.Context, tx *store.Tx, tenant int64, g Geo) error {
	if err := s.CheckGeo(ctx, tx, tenant, g); err != nil {
		return err
	}
	d, err := s.openedDirectory(tenant, "add a geo")
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insertGeo, g.ID, tenant, g.Name, strings.ToLower(g.Name), g.Created.UnixMilli()); err != nil {
		return err
	}
	for _, host := range g.Hosts {
		id := store.NewID()
		if _, err := tx.Exec(ctx, insertGeoHost, id, tenant, g.ID, d.geoHost(host), d.Seal(id, host)); err != nil {
			return err
		}
	}
	return nil
}

// Geos returns the geos of a tenant, the default one first, the others in the order
// in which they were made: with one query. The directory must have been opened before.
func (s *Containers) Geos(ctx context.Context, tx *store.Tx, tenant int64) ([]Geo, error) {
	d, err := s.openedDirectory(tenant, "list geos")
	if err != nil {
		return nil, err
	}
	list, err := selectGeos(ctx, tx, tenant, d.Open)
	if err != nil {
		return nil, err
	}
	for i := range list {
		slices.Sort(list[i].Hosts)
	}
	return list, nil
}

// FindGeo returns the geo with a name or with the URL of its admin site: the default
// geo for an empty identity, and for a URL whose host belongs to no other geo.
func (s *Containers) FindGeo(ctx context.Context, tx *store.Tx, tenant int64, identity string) (Geo, error) {
	all, err := s.Geos(ctx, tx, tenant)
	if err != nil {
		return Geo{}, err
	}
	if identity == "" {
		return all[0], nil
	}
	named := func(g Geo) bool { return strings.EqualFold(g.Name, identity) }
	if strings.Contains(identity, "://") {
		normal, err := normalise(Site, identity)
		if err != nil {
			return Geo{}, err
		}
		host := geoHostOf(hostOf(normal.exact))
		named = func(g Geo) bool { return slices.Contains(g.Hosts, host) }
		if !slices.ContainsFunc(all, named) {
			for _, g := range all { // the damaged host may be the one
				if len(g.Damaged) > 0 {
					return Geo{}, g.Damaged[0]
				}
			}
			return all[0], nil
		}
	}
	if i := slices.IndexFunc(all, named); i >= 0 {
		return all[i], nil
	}
	return Geo{}, fail.New(api.NotFound, "geo %q does not exist", identity).WithHint("keyroll geo list shows the geos")
}

// SitesByGeo counts the sites of each geo that has any, by its id.
func (s *Containers) SitesByGeo(ctx context.Context, tx *store.Tx, tenant int64) (map[int64]int64, error) {
	return countByGeo(ctx, tx, tenant)
}

// setGeos sets the geos of new sites according to their hosts.
func (s *Containers) setGeos(ctx context.Context, d *Directory, fresh []newContainer) error {
	geos := map[string]int64{} // by hash of the host
	err := s.db.View(ctx, func(tx *store.Tx) error {
		hosts, err := selectGeoHosts(ctx, tx, d.tenant)
		for _, h := range hosts {
			geos[string(h.hash)] = h.geo
		}
		return err
	})
	if err != nil || len(geos) == 0 {
		return err
	}
	for i := range fresh {
		normal, err := normalise(Site, fresh[i].Name)
		if err != nil {
			return err
		}
		fresh[i].Geo = geos[string(d.geoHost(geoHostOf(hostOf(normal.exact))))]
	}
	return nil
}

// geoHost is the hash by which the host of a geo is found.
func (d *Directory) geoHost(host string) []byte { return d.Hash("geo host", 0, host) }

// hostOf returns the host, with its port, of a URL in normal form.
func hostOf(normal string) string {
	u, err := url.Parse(normal)
	if err != nil {
		return ""
	}
	return u.Host
}

// geoHostOf returns the host by which the geo of a host is found: the host itself,
// or for an admin site the host of the sites.
func geoHostOf(host string) string {
	if sites := adminSiteOf(host); sites != "" {
		return sites
	}
	return host
}

// adminSiteOf returns the host of the sites whose admin site host is, and an empty
// string for any other host.
func adminSiteOf(host string) string {
	if name, ok := strings.CutSuffix(host, "-admin.sharepoint.com"); ok && name != "" {
		return name + ".sharepoint.com"
	}
	return ""
}
