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
	return c.feature(ctx, http.MethodPost, featureOf{subscription, namespace, name}, "/register")
}

// ShowFeature shows whether a subscription is registered for a feature.
func (c *Client) ShowFeature(ctx context.Context, subscription, namespace, name string) (cmdlet.Feature, error) {
	return c.feature(ctx, http.MethodGet, featureOf{subscription, namespace, name}, "")
}

// featureOf names a feature of a resource provider, in a subscription.
type featureOf struct{ subscription, namespace, name string }

func (c *Client) feature(ctx context.Context, method string, of featureOf, act string) (cmdlet.Feature, error) {
	in, err := c.subscriptionWith(ctx, of.subscription)
	if err != nil {
		return cmdlet.Feature{}, err
	}
	var answer struct {
		Name       string `json:"name"` // NAMESPACE/NAME
		Properties struct {
			State string `json:"state"`
		} `json:"properties"`
	}
	err = c.callARM(ctx, armRequest{what: "feature " + of.name, method: method, version: "2021-07-01",
		path: "/subscriptions/" + in.ID + "/providers/Microsoft.Features/providers/" + url.PathEscape(of.namespace) + "/features/" + url.PathEscape(of.name) + act}, &answer)
	if err != nil {
		return cmdlet.Feature{}, err
	}
	namespace, name, _ := strings.Cut(answer.Name, "/")
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
	err = c.callARM(ctx, armRequest{what: "resource provider " + namespace, method: http.MethodPost, version: "2021-04-01",
		path: "/subscriptions/" + in.ID + "/providers/" + url.PathEscape(namespace) + "/register"}, &answer)
	return answer.State, err
}
