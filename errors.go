package photon

import "errors"

// What went wrong, for errors.Is. Every error of this package wraps one of these, or an error of the
// system below it: a file that is not there matches fs.ErrNotExist, a cancelled context context.Canceled.
var (
	// ErrCorrupt marks bytes that are not what their format says: a truncated file, a hostile header, a config with a zero size.
	ErrCorrupt = errors.New("corrupt data")
	// ErrUnsupported marks a valid thing that this library does not run: another architecture, another number format, absurd sizes.
	ErrUnsupported = errors.New("not supported")
	// ErrMismatch marks parts that do not belong together: a tensor and the config, a snapshot and the model.
	ErrMismatch = errors.New("mismatch")
	// ErrMemoryLimit marks a model that needs more memory than WithMemoryLimit allows.
	ErrMemoryLimit = errors.New("memory limit")
	// ErrClosed marks the use of a closed model.
	ErrClosed = errors.New("closed")
	// ErrInvalid marks an argument out of range: a token id, an option.
	ErrInvalid = errors.New("invalid argument")
)
