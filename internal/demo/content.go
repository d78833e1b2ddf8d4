package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Mail is an mbox in memory.
type Mail struct{ mbox []byte }

// part is a sequence of messages of an mbox.
type part []byte

func (p part) size() int64       { return int64(len(p)) }
func (p part) reader() io.Reader { return bytes.NewReader(p) }
func (p part) digest() digest    { return sha256.Sum256(p) }

// ReadMail reads an mbox file.
func ReadMail(name string) (Mail, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Mail{}, fail.New(api.InvalidArgument, "the mail cannot be read: %w", err)
	}
	if len(b) > 0 && !bytes.HasPrefix(b, []byte("From ")) {
		return Mail{}, fail.New(api.InvalidArgument, "the mail cannot be used: %s is not an mbox", name)
	}
	return Mail{b}, nil
}

// History returns the history of the git repository at dir as mail, and false
// where there is none.
func History(ctx context.Context, dir string) (Mail, bool) {
	cmd := exec.CommandContext(ctx, "git", "-C", dir, "log", "--reverse", "--no-color", "--stat", "--pretty=mboxrd")
	out, err := cmd.Output()
	return Mail{out}, err == nil && len(out) > 0
}

// Size is the number of bytes.
func (m Mail) Size() int64 { return int64(len(m.mbox)) }

// split splits the mbox at message borders into n parts of about equal size.
func (m Mail) split(n int) []part {
	parts := make([]part, 0, n)
	rest := m.mbox
	for left := n; left > 1; left-- {
		cut := len(rest)
		if border := bytes.Index(rest[len(rest)/left:], []byte("\n\nFrom ")); border >= 0 {
			cut = len(rest)/left + border + 2
		}
		parts = append(parts, rest[:cut])
		rest = rest[cut:]
	}
	return append(parts, rest)
}

// Files are the files of a folder.
type Files struct {
	dir   string
	Paths []string // with slashes, relative to the folder
}

func (f Files) local(path string) string { return filepath.Join(f.dir, filepath.FromSlash(path)) }

// maxFiles bounds the files of a demo.
const maxFiles = 2000

// Tree lists the regular files below dir, without hidden folders, what git ignores, and
// the folder given by without.
func Tree(ctx context.Context, dir, without string) (Files, error) {
	files, ignored := Files{dir: dir}, ignoredBelow(ctx, dir)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case entry.IsDir() && (path != dir && strings.HasPrefix(entry.Name(), ".") || path == without || ignored[rel+"/"]):
			return filepath.SkipDir
		case entry.Type().IsRegular() && !ignored[rel] && len(files.Paths) < maxFiles:
			files.Paths = append(files.Paths, rel)
		}
		return nil
	})
	if err != nil {
		return files, fail.New(api.InvalidArgument, "the files cannot be listed: %w", err)
	}
	if len(files.Paths) == 0 {
		return files, fail.New(api.InvalidArgument, "there are no files below %s", dir)
	}
	return files, nil
}

// ignoredBelow returns the files and folders below dir that its git repository ignores,
// folders with a slash at the end; none where there is no repository.
func ignoredBelow(ctx context.Context, dir string) map[string]bool {
	ignored := map[string]bool{}
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory").Output()
	if err != nil {
		return ignored
	}
	for name := range strings.SplitSeq(string(out), "\x00") {
		ignored[name] = true
	}
	return ignored
}

// counted returns a reader that advances a bar.
func counted(r io.Reader, bar Bar) io.Reader { return &countedReader{r: r, bar: bar} }

type countedReader struct {
	r   io.Reader
	bar Bar
	n   int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.bar.Set(c.n)
	return n, err
}
