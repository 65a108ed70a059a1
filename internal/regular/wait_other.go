//go:build !unix

package regular

const openWithoutWaiting = 0 // a named pipe is no file in a directory here
