package vault

import (
	"context"

	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// importRequest is the body of an import request.
type importRequest struct {
	Key        material.PrivateWebKey `json:"key"`
	HSM        bool                   `json:"hsm"`
	Attributes attributes             `json:"attributes"`
	Tags       map[string]string      `json:"tags"`
}

// importKey creates a key, or a new version of the key of that name, from given
// material.
func (v *Vaults) importKey(ctx context.Context, c *call) (any, error) {
	var request importRequest
	if err := azure.Decode(c.body, &request); err != nil {
		return nil, err
	}
	given, err := request.Key.RSAKey()
	if err != nil {
		return nil, err
	}
	kind := "RSA"
	if request.HSM || request.Key.Type == "RSA-HSM" {
		kind = "RSA-HSM"
	}
	made, err := v.newVersion(c, createRequest{Type: kind, Operations: request.Key.Operations, Attributes: request.Attributes, Tags: request.Tags})
	if err != nil {
		return nil, err
	}
	private, public, err := material.Encode(given)
	if err != nil {
		return nil, err
	}
	return v.addVersion(ctx, c, made, private, public)
}
