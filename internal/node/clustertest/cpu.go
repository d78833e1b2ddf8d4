package clustertest

import (
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the processor time that the node's process has used, in user mode and in
// the kernel.
func (n *Node) CPU() time.Duration {
	n.cluster.t.Helper()
	// The clock of a process's processor time (CPUCLOCK_SCHED, clock_getcpuclockid(3)).
	clock := ^int32(n.process.Process.Pid)<<3 | 2
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		n.cluster.t.Fatal(err)
	}
	return time.Duration(used.Nano())
}
