//go:build unix

package regular

import "syscall"

const openWithoutWaiting = syscall.O_NONBLOCK
