package service

import (
	"context"
	"io"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// CreateSite makes a site under the site policy of its geo, or else the service-managed one.
func (s *Service) CreateSite(ctx context.Context, in api.CreateSiteInput) (out api.Site, err error) {
	return do(ctx, s, api.CreateSite.Meta, in.Body.URL, func(ctx context.Context, c *call) (api.Site, error) {
		c.DryRun = in.Body.DryRun
		made, err := s.containers.PrepareCreate(ctx, c.Tenant, container.Site, in.Body.URL, 0)
		if err != nil {
			return out, err
		}
		return makeContainer(ctx, c, made, siteOf)
	})
}

// ListSites lists sites in the order of their creation.
func (s *Service) ListSites(ctx context.Context, in api.ListInput) (api.List[api.Site], error) {
	return do(ctx, s, api.ListSites.Meta, "", func(ctx context.Context, c *call) (api.List[api.Site], error) {
		return listContainers(ctx, c, container.Site, in.PageInput, siteOf)
	})
}

// ShowSite shows a site and what it is encrypted with.
func (s *Service) ShowSite(ctx context.Context, in api.SiteInput) (out api.Site, err error) {
	return do(ctx, s, api.ShowSite.Meta, in.Site, func(ctx context.Context, c *call) (api.Site, error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Site, in.Site)
		if err != nil {
			return out, err
		}
		return out, c.Read(ctx, func(tx *store.Tx) (err error) {
			out, err = show(ctx, c, tx, ct, siteOf)
			return err
		})
	})
}

func siteOf(s shown) (out api.Site, err error) {
	out = api.Site{URL: s.Name, Geo: s.GeoName, Created: s.Created.UTC(), Items: s.total.Items, Bytes: s.total.Bytes}
	out.Protection, err = s.protection()
	return out, err
}

// ListFiles lists the files of a site in the order in which they were stored, and those
// of one page by path: the paths are encrypted, so that the database cannot sort by them.
func (s *Service) ListFiles(ctx context.Context, in api.ListSiteFiles) (api.List[api.File], error) {
	return do(ctx, s, api.ListFiles.Meta, in.Site, func(ctx context.Context, c *call) (list api.List[api.File], err error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Site, in.Site)
		if err != nil {
			return list, err
		}
		return c.listFiles(ctx, ct, in.PageInput)
	})
}

// listFiles lists a page of the files of a site, or of the items of a workload store.
func (c *call) listFiles(ctx context.Context, ct container.Container, in api.PageInput) (list api.List[api.File], err error) {
	after, limit, err := operation.ParsePage(in)
	if err != nil {
		return list, err
	}
	all, err := c.contents.Files(ctx, ct, after, limit+1)
	if err != nil {
		return list, err
	}
	var damaged []error // beside the page
	rows := make([]operation.Row[api.File], 0, len(all))
	for _, f := range all {
		if f.Lost {
			damaged = append(damaged, f.Damaged)
			continue
		}
		rows = append(rows, operation.Row[api.File]{ID: f.ID, Item: fileOf(f), Err: f.Damaged})
	}
	list, err = itemPage(ctx, c, rows, limit, damaged)
	slices.SortStableFunc(list.Items, func(a, b api.File) int { return strings.Compare(a.Path, b.Path) })
	return list, err
}

// itemPage makes a page of the items of a container, with damage beside them.
func itemPage[T any](ctx context.Context, c *call, rows []operation.Row[T], limit int, damaged []error) (list api.List[T], err error) {
	if list, err = operation.PageOf(rows, limit); err != nil {
		return list, err
	}
	for _, d := range damaged {
		if err := operation.AddDamage(&list, d); err != nil {
			return list, err
		}
	}
	return list, c.RecordRead(ctx)
}

// fileTarget returns the name of a file in the audit log.
func fileTarget(in api.FileInput) string { return in.Site + " " + in.Path }

func fileOf(f content.File) api.File {
	return api.File{Path: f.Path, Bytes: f.Size, Modified: f.Modified.UTC()}
}

// PutFile stores a file, all of it or nothing, and replaces one at the same path.
func (s *Service) PutFile(ctx context.Context, in api.FileInput, size int64, r io.Reader) (api.File, error) {
	return do(ctx, s, api.PutFile.Meta, fileTarget(in), func(ctx context.Context, c *call) (api.File, error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Site, in.Site)
		if err != nil {
			return api.File{}, err
		}
		return c.putFile(ctx, ct, in.Path, size, r)
	})
}

// putFile stores a file of a site, or an item of a workload store.
func (c *call) putFile(ctx context.Context, ct container.Container, path string, size int64, r io.Reader) (api.File, error) {
	file, err := c.contents.PrepareFile(ctx, ct, path, size, r)
	if err != nil {
		return api.File{}, err
	}
	var f content.File
	put := func(ctx context.Context, tx *store.Tx) (err error) {
		f, err = file.Commit(ctx, tx)
		return err
	}
	if file.Small() {
		err = c.CommitShared(ctx, file, ct.ID, put)
	} else {
		err = c.Commit(ctx, file, func(tx *store.Tx) (string, error) { return "", put(ctx, tx) })
	}
	if err != nil {
		return api.File{}, err
	}
	c.queueFollow(ct)
	c.foldBlobs(ct)
	return fileOf(f), nil
}

// GetFile writes a part of a file, which part chooses once the file is open. A
// concurrent put does not affect what is written.
func (s *Service) GetFile(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error {
	return errorOnly(do(ctx, s, api.GetFile.Meta, fileTarget(in), func(ctx context.Context, c *call) (none api.None, err error) {
		f, err := s.contents.OpenIn(ctx, c.Tenant, container.Site, in.Site, in.Path)
		if err != nil {
			return none, err
		}
		defer f.Close()
		off, n, err := part(fileOf(f.File))
		if err != nil {
			return none, err
		}
		defer c.queueFollow(f.Container())
		return none, c.Stream(ctx, w, func(w io.Writer) error { return f.WriteRange(ctx, off, n, w) })
	}))
}
