//go:build !unix

package bounded

import "time"

var began = time.Now()

func processor() time.Duration { return time.Since(began) }
