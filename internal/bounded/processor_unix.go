//go:build unix

package bounded

import (
	"syscall"
	"time"
)

// Processor is the time that the process has had of all processors: others that run beside it do not count.
func Processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
