package service

import (
	"context"
	"io"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
)

// ListWorkloads lists the workload stores that exist, each since its first item.
func (s *Service) ListWorkloads(ctx context.Context, in api.ListInput) (api.List[api.Workload], error) {
	return do(ctx, s, api.ListWorkloads.Meta, "", func(ctx context.Context, c *call) (api.List[api.Workload], error) {
		return listContainers(ctx, c, container.Workload, in.PageInput, workloadOf)
	})
}

func workloadOf(s shown) (w api.Workload, err error) {
	w = api.Workload{Name: s.Name, Created: s.Created.UTC(), Items: s.total.Items, Bytes: s.total.Bytes}
	w.Protection, err = s.protection()
	return w, err
}

// ListWorkloadItems lists the items of a workload store as ListFiles does those of a
// site.
func (s *Service) ListWorkloadItems(ctx context.Context, in api.ListStoreItems) (api.List[api.File], error) {
	return do(ctx, s, api.ListWorkloadItems.Meta, in.Workload, func(ctx context.Context, c *call) (list api.List[api.File], err error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Workload, in.Workload)
		if fail.Is(err, api.NotFound) {
			return api.List[api.File]{Items: []api.File{}}, c.RecordRead(ctx)
		}
		if err != nil {
			return list, err
		}
		return c.listFiles(ctx, ct, in.PageInput)
	})
}

// workloadTarget returns the name of an item of a workload store in the audit log.
func workloadTarget(in api.WorkloadItemInput) string { return in.Workload + " " + in.Item }

// PutWorkloadItem stores an item, all of it or nothing, and replaces one of the same
// name. The first item creates the store.
func (s *Service) PutWorkloadItem(ctx context.Context, in api.WorkloadItemInput, size int64, r io.Reader) (api.File, error) {
	return do(ctx, s, api.PutWorkloadItem.Meta, workloadTarget(in), func(ctx context.Context, c *call) (api.File, error) {
		ct, err := c.workloadStore(ctx, in.Workload)
		if err != nil {
			return api.File{}, err
		}
		return c.putFile(ctx, ct, in.Item, size, r)
	})
}

// workloadStore returns a workload store, and creates it if it does not exist.
func (c *call) workloadStore(ctx context.Context, name string) (container.Container, error) {
	ct, err := c.containers.Find(ctx, c.Tenant, container.Workload, name)
	if !fail.Is(err, api.NotFound) {
		return ct, err
	}
	ct, err = c.containers.Create(ctx, c.Tenant, container.Workload, name, 0)
	if fail.Is(err, api.AlreadyExists) { // another request was first
		return c.containers.Find(ctx, c.Tenant, container.Workload, name)
	}
	return ct, err
}

// GetWorkloadItem writes an item.
func (s *Service) GetWorkloadItem(ctx context.Context, in api.WorkloadItemInput, w io.Writer) error {
	return errorOnly(do(ctx, s, api.GetWorkloadItem.Meta, workloadTarget(in), func(ctx context.Context, c *call) (none api.None, err error) {
		f, err := s.contents.OpenIn(ctx, c.Tenant, container.Workload, in.Workload, in.Item)
		if err != nil {
			return none, err
		}
		defer f.Close()
		defer c.queueFollow(f.Container())
		return none, c.Stream(ctx, w, func(w io.Writer) error { return f.WriteRange(ctx, 0, -1, w) })
	}))
}
