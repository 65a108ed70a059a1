//go:build race

package photon

import (
	"runtime"
	"unsafe"
)

// The race detector does not see into assembly: raceRead and raceWrite tell it what a kernel reads and writes. Without -race they
// are nothing.

func raceRead[T any](s []T) {
	if len(s) > 0 {
		runtime.RaceReadRange(unsafe.Pointer(&s[0]), len(s)*int(unsafe.Sizeof(s[0])))
	}
}

func raceWrite[T any](s []T) {
	if len(s) > 0 {
		runtime.RaceWriteRange(unsafe.Pointer(&s[0]), len(s)*int(unsafe.Sizeof(s[0])))
	}
}

const raceEnabled = true

// raceReadRows and raceWriteRows are of rows of n elements that begin stride apart.

func raceReadRows[T any](s []T, stride, n, rows int) {
	for r := range rows {
		raceRead(s[r*stride:][:n])
	}
}

func raceWriteRows[T any](s []T, stride, n, rows int) {
	for r := range rows {
		raceWrite(s[r*stride:][:n])
	}
}
