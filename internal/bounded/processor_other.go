//go:build !unix

package bounded

import "time"

var began = time.Now()

// Processor is the time since the process began, where the system does not tell what it has had of all processors.
func Processor() time.Duration { return time.Since(began) }
