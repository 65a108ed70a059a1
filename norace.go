//go:build !race

package photon

const raceEnabled = false

func raceRead[T any](s []T)                           {}
func raceWrite[T any](s []T)                          {}
func raceReadRows[T any](s []T, stride, n, rows int)  {}
func raceWriteRows[T any](s []T, stride, n, rows int) {}
