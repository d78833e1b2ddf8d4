package main

import (
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type siteCommand struct {
	Create siteCreate `cmd:"" help:"Create a site."`
	Put    sitePut    `cmd:"" help:"Store a file; a file at the same path is replaced."`
	Get    siteGet    `cmd:"" help:"Write a file, or a part of it, to standard output."`
	Ls     siteLs     `cmd:"" help:"List the files of a site."`
	List   siteList   `cmd:"" help:"List sites and what they are encrypted with."`
	Show   siteShow   `cmd:"" help:"Show one site and what it is encrypted with."`
}

type siteCreate struct {
	connection
	URL string `arg:"" help:"URL of the site, for example https://contoso.sharepoint.com/sites/legal."`
}

func (c *siteCreate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.CreateSiteInput
		in.Body.URL = c.URL
		s, err := k.CreateSite(e, in)
		if err != nil {
			return err
		}
		return e.printSite(s)
	})
}

type sitePut struct {
	connection
	URL  string `arg:"" help:"URL of the site."`
	File string `arg:"" type:"path" help:"The file to store, or - for standard input."`
	Path string `arg:"" help:"Its path within the site."`
}

func (c *sitePut) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in, total, done, err := e.open(c.File)
		if err != nil {
			return err
		}
		defer done()
		bar := e.Progress("put", total)
		f, err := k.PutFile(e, api.FileInput{SiteInput: api.SiteInput{Site: c.URL}, Path: c.Path}, total, bar.Reader(in))
		bar.End()
		if err != nil {
			return err
		}
		return e.Object(f, func(w io.Writer) {
			fmt.Fprintf(w, "%s stored at %s\n", terminal.Size(f.Bytes), terminal.Escape(f.Path))
		})
	})
}

type siteGet struct {
	connection
	URL    string `arg:"" help:"URL of the site."`
	Path   string `arg:"" help:"Path of the file within the site."`
	Offset int64  `name:"offset" default:"0" help:"First byte to write (default: 0)."`
	Length int64  `name:"length" default:"-1" help:"Number of bytes to write (default: all that follow)."`
}

func (c *siteGet) Run(e *env) error {
	if c.Offset < 0 || c.Length < -1 || c.Length == 0 {
		return fail.New(api.InvalidArgument, "offset %d and length %d are not a valid range: the offset is at least 0 and the length at least 1", c.Offset, c.Length)
	}
	return c.withClient(func(k *client.Client) error {
		r, err := k.GetFile(e, api.FileInput{SiteInput: api.SiteInput{Site: c.URL}, Path: c.Path}, c.Offset, c.Length)
		return e.copy(r, err)
	})
}

type siteLs struct {
	connection
	URL string `arg:"" help:"URL of the site."`
}

func (c *siteLs) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "bytes modified path", func(f api.File) []any { return []any{f.Bytes, terminal.Time(f.Modified), f.Path} },
			func(page api.PageInput) (api.List[api.File], error) {
				return k.ListFiles(e, api.ListSiteFiles{SiteInput: api.SiteInput{Site: c.URL}, PageInput: page})
			})
	})
}

type siteList struct{ connection }

func (c *siteList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "url items bytes policy dataEncryptionPolicyID", func(s api.Site) []any {
			return []any{s.URL, s.Items, terminal.Size(s.Bytes), s.Protection.Policy, s.Protection.DataEncryptionPolicyID}
		}, func(page api.PageInput) (api.List[api.Site], error) {
			return k.ListSites(e, api.ListInput{PageInput: page})
		})
	})
}

type siteShow struct {
	connection
	URL string `arg:"" help:"URL of the site."`
}

func (c *siteShow) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		s, err := k.ShowSite(e, api.SiteInput{Site: c.URL})
		if err != nil {
			return err
		}
		return e.printSite(s)
	})
}

func (e *env) printSite(s api.Site) error {
	return e.Object(s, func(w io.Writer) {
		protected(w, s.Protection, "url", s.URL, "geo", s.Geo, "items", s.Items, "bytes", terminal.Size(s.Bytes), "created", terminal.Time(s.Created))
	})
}
