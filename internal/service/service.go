// Package service is the single entry point to mailboxes, sites and policies, with
// one method for each operation of the api package.
//
// Each method acts only within the tenant of its caller. Package operation checks the
// caller's roles and writes the audit entry; the operations on principals are those of
// package principals. Start reading at do.
package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/approval"
	"keyroll/internal/audit"
	"keyroll/internal/backup"
	"keyroll/internal/collect"
	"keyroll/internal/compact"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/lease"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/principals"
	"keyroll/internal/purge"
	"keyroll/internal/renew"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
	"keyroll/internal/verify"
)

// Config has the packages that the service uses.
type Config struct {
	DB         *store.DB
	Access     *access.Directory
	Policies   *policy.Policies
	Purger     *purge.Purger
	Containers *container.Containers
	Items      *items.Store
	Contents   *content.Contents
	Backups    *backup.Backups
	Collector  *collect.Collector
	Compactor  *compact.Compactor
	Renewer    *renew.Renewer
	Roller     *roll.Roller
	Verifier   *verify.Verifier
	Audit      *audit.Log
	Upkeep     *upkeep.Queue
	Keys       KeyNames
	// TenantGUID returns the GUID of a tenant.
	TenantGUID func(ctx context.Context, tenant int64) (uuid.UUID, error)
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases
	// PageSlots is the size of new key pages.
	PageSlots int
	Now       func() time.Time
	Logger    *slog.Logger
}

// KeyNames parses and formats the URIs of customer keys.
type KeyNames interface {
	ParseURI(uri string) (envelope.KeyVersion, error)
	Reference(vault, key, version string) (envelope.KeyVersion, error)
	URI(kv envelope.KeyVersion) string
}

// Service implements the operations of the api package.
type Service struct {
	*principals.Principals
	frame      *operation.Frame
	db         *store.DB
	access     *access.Directory
	policies   *policy.Policies
	purger     *purge.Purger
	approvals  *approval.Runner
	containers *container.Containers
	items      *items.Store
	contents   *content.Contents
	backups    *backup.Backups
	collector  *collect.Collector
	compactor  *compact.Compactor
	renewer    *renew.Renewer
	roller     *roll.Roller
	verifier   *verify.Verifier
	audit      *audit.Log
	upkeep     *upkeep.Queue
	keyNames   KeyNames
	tenantGUID func(ctx context.Context, tenant int64) (uuid.UUID, error)
	pageSlots  int
	now        func() time.Time
	logger     *slog.Logger
}

// New returns a service.
func New(c Config) *Service {
	s := &Service{
		db: c.DB, access: c.Access, policies: c.Policies, purger: c.Purger, containers: c.Containers, items: c.Items, contents: c.Contents,
		backups: c.Backups, collector: c.Collector, compactor: c.Compactor, renewer: c.Renewer, roller: c.Roller, verifier: c.Verifier, audit: c.Audit, upkeep: c.Upkeep,
		keyNames: c.Keys, tenantGUID: c.TenantGUID, pageSlots: c.PageSlots, now: c.Now, logger: c.Logger,
	}
	s.frame = &operation.Frame{DB: c.DB, Audit: c.Audit,
		Texts: func(ctx context.Context, tenant int64) (operation.Texts, error) {
			return c.Containers.Directory(ctx, tenant)
		},
		Uncertain: func() {
			c.Roller.Wake()
			c.Purger.Wake()
		}}
	s.approvals = approval.NewRunner(approval.Config{DB: c.DB, Run: s.RunApproved, Over: s.ExpireApproval, Leases: c.Leases, Now: c.Now, Logger: c.Logger})
	s.Principals = principals.New(s.frame, c.Access, principals.Acts{Words: words, Approved: s.purgeApproved, Ended: s.requestEnded, Wake: s.woken, Logger: c.Logger}, c.Now)
	return s
}

// call is one running operation.
type call struct {
	*Service
	*operation.Call
	request *approval.Request // that was approved; nil: none was needed
}

// do runs an operation.
func do[Out any](ctx context.Context, s *Service, op api.Meta, target string, f func(ctx context.Context, c *call) (Out, error)) (Out, error) {
	return operation.Do(ctx, s.frame, op, target, func(ctx context.Context, c *operation.Call) (Out, error) { return f(ctx, &call{Service: s, Call: c}) })
}

// CheckRole refuses an operation that the caller's roles do not permit, and writes the
// audit entry, so that the caller need not parse its input first.
func (s *Service) CheckRole(ctx context.Context, op api.Meta) error {
	return s.frame.CheckRole(ctx, op)
}

// Approvals has approved acts done.
func (s *Service) Approvals() *approval.Runner { return s.approvals }
