package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/photon-lm/photon/internal/strictjson"
)

// batchLine is what a line of IN asks for.
type batchLine struct {
	ID           json.RawMessage
	Prompt, Text *string
	N            *int
	Seed         *uint64
}

// parseLine reads a line of IN, of which nothing is ignored; id and meta hold any JSON. Beside an error the line has
// its ID where that was found.
func parseLine(data []byte) (line batchLine, err error) {
	var values map[string]json.RawMessage
	if utf8.Valid(data) {
		json.Unmarshal(data, &values)
		line.ID = values["id"]
	}
	if err := strictjson.Check("line", data, 1); err != nil {
		return line, err
	}
	if values == nil {
		return line, errors.New("the line is not a JSON object")
	}
	keys := json.NewDecoder(bytes.NewReader(data))
	for keys.Token(); keys.More(); {
		token, _ := keys.Token()
		var value json.RawMessage
		keys.Decode(&value)
		key := token.(string)
		to, want := line.field(key)
		if to == nil {
			return line, fmt.Errorf("key %.40q is not known: want id, prompt, text, n or seed; "+
				"what is to come back goes into id, any JSON", key)
		}
		if json.Unmarshal(value, to) != nil || line.N != nil && *line.N > mostTokens {
			return line, fmt.Errorf("%q is %.40s: want %s", key, value, want)
		}
	}
	if line.Prompt != nil && line.Text != nil {
		return line, errors.New("a prompt and a text: give one, a text with -score")
	}
	return line, nil
}

// field is where the value of a key goes, and what it has to be.
func (l *batchLine) field(key string) (to any, want string) {
	switch key {
	case "id":
		return &l.ID, ""
	case "prompt":
		return &l.Prompt, "a string"
	case "text":
		return &l.Text, "a string"
	case "n":
		return &l.N, wantTokens
	case "seed":
		return &l.Seed, "a whole number of 0 or more"
	case "meta": // what corpora say of their texts
		return new(json.RawMessage), ""
	}
	return nil, ""
}
