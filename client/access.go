package client

import (
	"context"

	"keyroll/api"
)

// CreateToken creates a token with a name and roles.
func (c *Client) CreateToken(ctx context.Context, in api.CreateTokenInput) (api.CreatedToken, error) {
	return call(ctx, c, api.CreateToken, in)
}

// ListTokens lists tokens.
func (c *Client) ListTokens(ctx context.Context, in api.None) (api.List[api.Token], error) {
	return call(ctx, c, api.ListTokens, in)
}

// RotateToken replaces a token by a new one.
func (c *Client) RotateToken(ctx context.Context, in api.RotateTokenInput) (api.CreatedToken, error) {
	return call(ctx, c, api.RotateToken, in)
}

// RevokeToken revokes a token.
func (c *Client) RevokeToken(ctx context.Context, in api.TokenInput) (api.None, error) {
	return call(ctx, c, api.RevokeToken, in)
}

// WhoAmI shows whose token the client has.
func (c *Client) WhoAmI(ctx context.Context, in api.None) (api.Identity, error) {
	return call(ctx, c, api.WhoAmI, in)
}

// AddApprover registers an approver and returns the one-time code.
func (c *Client) AddApprover(ctx context.Context, in api.AddApproverInput) (api.InvitedApprover, error) {
	return call(ctx, c, api.AddApprover, in)
}

// EnrolApprover exchanges the client's token, a one-time code, for the approver's own token.
func (c *Client) EnrolApprover(ctx context.Context, in api.None) (api.CreatedToken, error) {
	return call(ctx, c, api.EnrolApprover, in)
}

// ListApprovers lists the approvers.
func (c *Client) ListApprovers(ctx context.Context, in api.ApproverTenant) (api.List[api.ApproverInfo], error) {
	return call(ctx, c, api.ListApprovers, in)
}

// RemoveApprover removes an approver.
func (c *Client) RemoveApprover(ctx context.Context, in api.RemoveApproverInput) (api.None, error) {
	return call(ctx, c, api.RemoveApprover, in)
}

// ListApprovals lists the acts that need a second person.
func (c *Client) ListApprovals(ctx context.Context, in api.ListApprovalsInput) (api.List[api.Approval], error) {
	return call(ctx, c, api.ListApprovals, in)
}

// ShowApproval shows an act that needs a second person.
func (c *Client) ShowApproval(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return call(ctx, c, api.ShowApproval, in)
}

// ApproveAct approves an act.
func (c *Client) ApproveAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return call(ctx, c, api.ApproveAct, in)
}

// RejectAct rejects an act.
func (c *Client) RejectAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return call(ctx, c, api.RejectAct, in)
}

// WithdrawAct withdraws an act.
func (c *Client) WithdrawAct(ctx context.Context, in api.ApprovalInput) (api.Approval, error) {
	return call(ctx, c, api.WithdrawAct, in)
}
