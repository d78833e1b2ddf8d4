package listen

import "time"

// pace bounds how long the other side may keep an operation waiting: it begins
// with a reserve of time, which shrinks by the time that an operation takes and grows by
// the time that its bytes need at the lowest rate. When the reserve is used up, cut is
// called, even during an operation. It may be used by one goroutine at a time.
type pace struct {
	max, left time.Duration
	perByte   time.Duration
	timer     *time.Timer
}

func newPace(l Limits, cut func()) *pace {
	p := &pace{max: l.Stall, left: l.Stall, perByte: time.Second / time.Duration(l.Rate)}
	p.timer = time.AfterFunc(l.Stall, cut)
	p.timer.Stop()
	return p
}

// do runs one operation, which moves a number of bytes.
func (p *pace) do(operation func() (int, error)) (int, error) {
	began := time.Now()
	p.timer.Reset(p.left)
	n, err := operation()
	p.timer.Stop()
	p.left = min(p.max, max(0, p.left-time.Since(began))+time.Duration(n)*p.perByte)
	return n, err
}
