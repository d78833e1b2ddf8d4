package service_test

import (
	"io"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Each dry run succeeds or is refused as the change would be, and changes no table.
func TestDryRunIsRefusedIfTheChangeWouldBe(t *testing.T) {
	dry := api.DryRunOption{DryRun: true}
	each(t, func(w testService) {
		w.mailPolicy()
		w.sites()
		w.workPolicy("work")
		w.workPolicy("other")
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox("bob@contoso.com", ""))))
		w.Must(e(w.CreateGeo(w.ctx, newGeo("EU", "contoso-eu.sharepoint.com"))))
		w.tidy()

		createPolicy := func(name string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				w.newKey("A-" + name)
				w.newKey("B-" + name)
				in := newPolicy(name, keyURI("A-"+name), keyURI("B-"+name))
				in.Body.DryRunOption = option
				return e(w.CreatePolicy(w.ctx, in))
			}
		}
		registerIn := func(geo string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := register(w.newKey("A-EU"), w.newKey("B-EU"))
				in.Body.Geo, in.Body.DryRunOption = geo, option
				return e(w.RegisterSites(w.ctx, in))
			}
		}
		updateSites := func(keyType, vault string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := update("Sites", keyType, w.newKey(vault))
				in.Body.DryRunOption = option
				return e(w.UpdatePolicy(w.ctx, in))
			}
		}
		create := func(name string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := newMailbox(name, "p")
				in.Body.DryRunOption = option
				return e(w.CreateMailbox(w.ctx, in))
			}
		}
		assignTo := func(policy string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := assign("bob@contoso.com", policy)
				in.Body.DryRunOption = option
				return e(w.AssignMailbox(w.ctx, in))
			}
		}
		createSite := func(url string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := newSite(url)
				in.Body.DryRunOption = option
				return e(w.CreateSite(w.ctx, in))
			}
		}
		rename := func(name string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := setting("other", name, nil)
				in.Body.DryRunOption = option
				return e(w.SetPolicy(w.ctx, in))
			}
		}
		disable := func(option api.DryRunOption) error {
			no := false
			in := setting("p", "", &no)
			in.Body.DryRunOption = option
			return e(w.SetPolicy(w.ctx, in))
		}
		assignTenant := func(policy string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := assignment(policy)
				in.Body.DryRunOption = option
				return e(w.AssignPolicy(w.ctx, in))
			}
		}
		leaveIt := func(policy string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := leave(policy)
				in.DryRun = option.DryRun
				return e(w.LeavePolicy(w.ctx, in))
			}
		}
		purge := func(policy string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := purgeOf(policy)
				in.Body.DryRunOption = option
				return e(w.RequestPurge(w.ctx, in))
			}
		}
		restore := func(to ...string) func(api.DryRunOption) error {
			return func(option api.DryRunOption) error {
				in := restoreTo(w.newKey(to[0]), w.newKey(to[1]))
				in.Body.DryRunOption = option
				return e(w.RestoreSites(w.ctx, in))
			}
		}
		for _, step := range []struct {
			what    string
			prepare func()
			act     func(api.DryRunOption) error
			code    api.Code // of the refusal; none where the change is made
		}{
			{"create a mailbox", nil, create("carol@contoso.com"), ""},
			{"create a mailbox whose name is taken", nil, create("ALICE@contoso.com"), api.AlreadyExists},
			{"create a mailbox without a valid name", nil, create("a\u202eb@contoso.com"), api.InvalidArgument},
			{"assign to a mailbox", nil, assignTo("p"), ""},
			{"assign a policy of another kind", nil, assignTo("work"), api.Conflict},
			{"assign a policy that does not exist", nil, assignTo("none"), api.NotFound},
			{"create a site", nil, createSite("https://contoso.sharepoint.com/sites/new"), ""},
			{"create a site that exists", nil, createSite(team), api.AlreadyExists},
			{"rename a policy", nil, rename("another"), ""},
			{"rename it again, by its old name", nil, rename("third"), api.NotFound},
			{"disable a policy with mailboxes", nil, disable, api.Conflict},
			{"create a policy", nil, createPolicy("fresh"), ""},
			{"create a policy whose name is taken", nil, createPolicy("p"), api.AlreadyExists},
			{"register the sites of a geo", nil, registerIn("EU"), ""},
			{"register them again", nil, registerIn("EU"), api.AlreadyExists},
			{"register the sites of a geo that does not exist", nil, registerIn("Asia"), api.NotFound},
			{"update a site policy to the vault of its other key", nil, updateSites("primary", "B-Sites"), api.InvalidArgument},
			{"update a site policy", nil, updateSites("primary", "A-Sites"), ""},
			{"update it while it is rolled", nil, updateSites("secondary", "B-Sites"), api.RollInProgress},
			{"assign to the tenant", nil, assignTenant("work"), ""},
			{"assign a mailbox policy to the tenant", nil, assignTenant("p"), api.InvalidArgument},
			{"leave a policy", func() { w.finishRolls() }, leaveIt("another"), ""},
			{"leave it once more", nil, leaveIt("another"), api.Conflict},
			{"restore sites that are not in recovery", nil, restore("C-Sites", "D-Sites"), api.Conflict},
			{"restore sites", func() { w.finishRolls(); w.revoke("Sites"); w.Must(e(w.RecoverPolicy(w.ctx, policyNamed("Sites")))) }, restore("C-Sites", "D-Sites"), ""},
			{"purge a policy that is not revoked", nil, purge("p"), api.Conflict},
			{"purge a policy", func() {
				w.finishRolls()
				w.revoke("p")
				w.Policies.Close()
				refused(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.VaultDenied)
			}, purge("p"), ""},
		} {
			if step.prepare != nil {
				step.prepare()
			}
			seen := map[int64]bool{}
			w.entries(seen)
			before := w.everything()
			asked := step.act(dry)
			if w.everything() != before {
				t.Errorf("%s: the dry run changed something", step.what)
			}
			if list := w.entries(seen); len(list) != 1 {
				t.Errorf("%s: the dry run left %v in the log", step.what, list)
			}
			done := step.act(api.DryRunOption{})
			if fail.CodeOf(asked) != fail.CodeOf(done) || (done == nil) != (asked == nil) || done != nil && fail.CodeOf(done) != step.code || done == nil && step.code != "" {
				t.Errorf("%s: the dry run: %v; the change: %v; want %q", step.what, asked, done, step.code)
			}
			if done == nil && w.everything() == before {
				t.Errorf("%s: the change changed nothing", step.what)
			}
		}
	})
}
