package listen

import "time"

// pace bounds how long the other side may keep an operation waiting: it begins
// with a reserve of time, spends what an operation waits, and earns what its
// bytes need at the lowest rate. Once the reserve is spent, cut is called, also
// in the middle of an operation. One goroutine uses it.
type pace struct {
	most, left time.Duration
	perByte    time.Duration
	timer      *time.Timer
}

func newPace(l Limits, cut func()) *pace {
	p := &pace{most: l.Stall, left: l.Stall, perByte: time.Second / time.Duration(l.Rate)}
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
	p.left = min(p.most, max(0, p.left-time.Since(began))+time.Duration(n)*p.perByte)
	return n, err
}
