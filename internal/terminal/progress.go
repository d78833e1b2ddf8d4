package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Progress shows the progress of an operation on standard error: as a bar on a
// terminal, as a line every few seconds elsewhere.
type Progress struct {
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

// lineEvery is how often Progress prints a line where there is no terminal.
const lineEvery = 2 * time.Second

// Progress starts a progress of total steps; -1 means unknown.
func (t Terminal) Progress(title string, total int64) *Progress {
	p := &Progress{title: Escape(title), stop: make(chan struct{}), ended: make(chan struct{})}
	p.total.Store(total)
	p.text.Store("")
	if isTerminal(t.ErrOut) {
		p.bars = mpb.New(mpb.WithOutput(t.ErrOut), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(max(total, 0),
			mpb.PrependDecorators(decor.Name(title+" ")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + p.figure() })))
		return p
	}
	p.lines = t.ErrOut
	go p.print()
	return p
}

func (p *Progress) print() {
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
func (p *Progress) figure() string {
	done, total := p.done.Load(), p.total.Load()
	figure := fmt.Sprint(done)
	if total > 0 {
		figure = fmt.Sprintf("%.0f %%", 100*float64(done)/float64(total))
	}
	return strings.TrimSpace(figure + " " + p.text.Load().(string))
}

// Set says how many steps are done.
func (p *Progress) Set(done int64) {
	p.done.Store(done)
	if p.bar != nil {
		p.bar.SetCurrent(done)
	}
}

// SetTotal changes how many steps there are; 0 and less mean unknown.
func (p *Progress) SetTotal(total int64) {
	if p.total.Swap(total) != total && p.bar != nil {
		p.bar.SetTotal(max(total, 0), false)
	}
}

// SetNote sets the text behind the figure.
func (p *Progress) SetNote(text string) { p.text.Store(text) }

// End shows the last figure and stops.
func (p *Progress) End() {
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

// Reader counts what is read through it as steps.
func (p *Progress) Reader(r io.Reader) io.Reader { return &countingReader{r: r, p: p} }

type countingReader struct {
	r io.Reader
	p *Progress
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.p.Set(c.n)
	return n, err
}
