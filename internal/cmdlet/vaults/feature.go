package vaults

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"keyroll/internal/cmdlet"
)

// RegisterFeature registers a subscription for a feature.
func (c *Client) RegisterFeature(ctx context.Context, subscription, namespace, name string) (cmdlet.Feature, error) {
	return c.feature(ctx, http.MethodPost, subscription, namespace, name, "/register")
}

// ShowFeature shows whether a subscription is registered for a feature.
func (c *Client) ShowFeature(ctx context.Context, subscription, namespace, name string) (cmdlet.Feature, error) {
	return c.feature(ctx, http.MethodGet, subscription, namespace, name, "")
}

func (c *Client) feature(ctx context.Context, method, subscription, namespace, name, act string) (cmdlet.Feature, error) {
	in, err := c.subscriptionWith(ctx, subscription)
	if err != nil {
		return cmdlet.Feature{}, err
	}
	var answer struct {
		Name       string `json:"name"` // NAMESPACE/NAME
		Properties struct {
			State string `json:"state"`
		} `json:"properties"`
	}
	err = c.callARM(ctx, method, "/subscriptions/"+in.ID+"/providers/Microsoft.Features/providers/"+url.PathEscape(namespace)+
		"/features/"+url.PathEscape(name)+act, "2021-07-01", "feature "+name, &answer)
	if err != nil {
		return cmdlet.Feature{}, err
	}
	namespace, name, _ = strings.Cut(answer.Name, "/")
	return cmdlet.Feature{Namespace: namespace, Name: name, State: answer.Properties.State}, nil
}

// RegisterProvider registers a subscription for a resource provider.
func (c *Client) RegisterProvider(ctx context.Context, subscription, namespace string) (string, error) {
	in, err := c.subscriptionWith(ctx, subscription)
	if err != nil {
		return "", err
	}
	var answer struct {
		State string `json:"registrationState"`
	}
	err = c.callARM(ctx, http.MethodPost, "/subscriptions/"+in.ID+"/providers/"+url.PathEscape(namespace)+"/register",
		"2021-04-01", "resource provider "+namespace, &answer)
	return answer.State, err
}
