package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress shows the progress of an operation on standard error: as a bar on a
// terminal, as a line every few seconds elsewhere.
type progress struct {
	title string
	total atomic.Int64
	done  atomic.Int64
	text  atomic.Value // string

	bars *mpb.Progress
	bar  *mpb.Bar

	lines io.Writer
	stop  chan struct{}
	ended chan struct{}
}

// lineEvery is how often progress prints a line where there is no terminal.
const lineEvery = 2 * time.Second

// progress starts a progress of total steps; -1 means unknown.
func (e *env) progress(title string, total int64) *progress {
	p := &progress{title: escapeText(title), stop: make(chan struct{}), ended: make(chan struct{})}
	p.total.Store(total)
	p.text.Store("")
	if f, ok := e.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(e.err), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(max(total, 0),
			mpb.PrependDecorators(decor.Name(title+" ")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + p.figure() })))
		return p
	}
	p.lines = e.err
	go p.print()
	return p
}

func (p *progress) print() {
	defer close(p.ended)
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			fmt.Fprintf(p.lines, "%s: %s\n", p.title, p.figure())
		}
	}
}

// figure returns the progress, in percent where the total is known.
func (p *progress) figure() string {
	done, total := p.done.Load(), p.total.Load()
	figure := fmt.Sprint(done)
	if total > 0 {
		figure = fmt.Sprintf("%.0f %%", 100*float64(done)/float64(total))
	}
	return strings.TrimSpace(figure + " " + p.text.Load().(string))
}

// Set says how many steps are done.
func (p *progress) Set(done int64) {
	p.done.Store(done)
	if p.bar != nil {
		p.bar.SetCurrent(done)
	}
}

// setTotal changes how many steps there are; 0 and less mean unknown.
func (p *progress) setTotal(total int64) {
	if p.total.Swap(total) != total && p.bar != nil {
		p.bar.SetTotal(max(total, 0), false)
	}
}

// setNote sets the text behind the figure.
func (p *progress) setNote(text string) { p.text.Store(text) }

// End shows the last figure and stops.
func (p *progress) End() {
	if p.bar == nil {
		close(p.stop)
		<-p.ended
		return
	}
	p.bar.EnableTriggerComplete()
	if !p.bar.Completed() {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}

// reader counts what is read through it as steps.
func (p *progress) reader(r io.Reader) io.Reader { return &countingReader{r: r, p: p} }

type countingReader struct {
	r io.Reader
	p *progress
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.p.Set(c.n)
	return n, err
}
