//go:build unix

package photon

import "syscall"

const openWithoutWaiting = syscall.O_NONBLOCK
