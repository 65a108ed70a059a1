package strictjson

import "fmt"

// A Field says how to read the value of one key.
type Field struct {
	Key      string
	Read     func() error
	Required bool
}

// Fields reads an object of up to 64 known keys. Unknown keys are checked and ignored; a required key that is absent is
// an error.
func (r *Reader) Fields(fields ...Field) error {
	found := uint64(0) // bit i: field i
	err := r.Object(func(key string) error {
		for i, f := range fields {
			if f.Key == key {
				found |= 1 << i
				if err := f.Read(); err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				return nil
			}
		}
		return r.Skip()
	})
	if err != nil {
		return err
	}
	for i, f := range fields {
		if f.Required && found>>i&1 == 0 {
			return fmt.Errorf("%s is missing: %w", f.Key, r.kind)
		}
	}
	return nil
}

// Need is a Field that has to be there, May one that need not.
func Need(key string, read func() error) Field { return Field{key, read, true} }
func May(key string, read func() error) Field  { return Field{key, read, false} }

// Into puts what read reads into dst.
func Into[T any](dst *T, read func() (T, error)) func() error {
	return func() (err error) {
		*dst, err = read()
		return err
	}
}

// OrNull lets null stand for what read would read.
func (r *Reader) OrNull(read func() error) func() error {
	return func() error {
		if r.Null() {
			return nil
		}
		return read()
	}
}
