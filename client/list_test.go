package client_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"keyroll/api"
	"keyroll/client"
)

// startLists starts a server whose lists have three pages, and returns the queries of its
// requests.
func startLists(t *testing.T) (*client.Client, *[]string) {
	var queries []string
	_, o := startOtherServer(t, func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, map[string]string{
			"":  `{"items":[{"path":"b","bytes":1},{"path":"d"}],"next":"2"}`,
			"2": `{"items":[{"path":"a"}],"damaged":["item 7"],"next":"3"}`,
			"3": `{"items":[{"path":"b","bytes":2}]}`,
		}[r.URL.Query().Get("after")])
	})
	return open(t, o), &queries
}

// Lists that were once answered as a whole still are, unless a page is selected. A file
// that was replaced between two pages is in the list once, as it is.
func TestListWithoutAPageIsReadToItsEnd(t *testing.T) {
	c, queries := startLists(t)
	l, err := c.ListFiles(t.Context(), api.ListSiteFiles{SiteInput: api.SiteInput{Site: "s"}})
	var paths []string
	for _, f := range l.Items {
		paths = append(paths, f.Path)
	}
	if err != nil || !slices.Equal(paths, []string{"a", "b", "d"}) || l.Items[1].Bytes != 2 || l.Next != "" || len(l.Damaged) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if want := []string{"site=s", "after=2&limit=1000&site=s", "after=3&limit=1000&site=s"}; !slices.Equal(*queries, want) {
		t.Errorf("%q", *queries)
	}
	for _, list := range []func(api.ListInput) (int, string, error){
		func(in api.ListInput) (int, string, error) {
			l, err := c.ListRolls(t.Context(), in)
			return len(l.Items), l.Next, err
		},
		func(in api.ListInput) (int, string, error) {
			l, err := c.ListPolicies(t.Context(), in)
			return len(l.Items), l.Next, err
		},
		func(in api.ListInput) (int, string, error) {
			l, err := c.ListGeos(t.Context(), in)
			return len(l.Items), l.Next, err
		},
		func(in api.ListInput) (int, string, error) {
			l, err := c.ListWorkloads(t.Context(), in)
			return len(l.Items), l.Next, err
		},
		func(in api.ListInput) (int, string, error) {
			l, err := c.ListPurges(t.Context(), in)
			return len(l.Items), l.Next, err
		},
	} {
		if n, next, err := list(api.ListInput{}); n != 4 || next != "" || err != nil {
			t.Errorf("%d entries, next %q, %v", n, next, err)
		}
		if n, next, err := list(api.ListInput{PageInput: api.PageInput{Limit: 2}}); n != 2 || next != "2" || err != nil {
			t.Errorf("%d entries, next %q, %v", n, next, err)
		}
	}
}

func TestEachPageReadsAListToItsEnd(t *testing.T) {
	c, queries := startLists(t)
	var sizes []int
	err := client.EachPage(func(page api.PageInput) (api.List[api.Mailbox], error) {
		return c.ListMailboxes(t.Context(), api.ListInput{PageInput: page})
	}, func(items []api.Mailbox) error { sizes = append(sizes, len(items)); return nil })
	if err != nil || !slices.Equal(sizes, []int{2, 1, 1}) || !slices.Equal(*queries, []string{"limit=100", "after=2&limit=1000", "after=3&limit=1000"}) {
		t.Errorf("%v, %q, %v", sizes, *queries, err)
	}
}
