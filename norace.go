//go:build !race

package photon

func raceRead[T any](s []T)                           {}
func raceWrite[T any](s []T)                          {}
func raceReadRows[T any](s []T, stride, n, rows int)  {}
func raceWriteRows[T any](s []T, stride, n, rows int) {}
