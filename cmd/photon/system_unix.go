//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func init() {
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		endings[syscall.SIGHUP] = 129
	}
}

func isTerminalFile(f *os.File) bool {
	c, err := f.SyscallConn() // which, unlike Fd, leaves the file as it is
	if err != nil {
		return false
	}
	terminal := false
	err = c.Control(func(fd uintptr) {
		_, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
		terminal = err == nil
	})
	return err == nil && terminal
}
