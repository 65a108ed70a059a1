package photon

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestJSON(t *testing.T) {
	m := stories(t)
	r, err := m.Complete(background, "The sun", LogProbs(2), MaxTokens(4))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := m.Complete(background, "The sun", MaxTokens(4))
	if err != nil {
		t.Fatal(err)
	}
	masked := Token{ID: 3, Text: "x", Stop: StopEOS, LogProb: float32(math.Inf(-1)), Top: []TokenProb{{1, -0.5}, {2, float32(math.Inf(-1))}}}
	for _, value := range []any{r, plain, r.Tokens[1], r.Stats, masked, BatchToken{5, r.Tokens[0]}, m.Config(), m.Config().Levels[0],
		m.Config().Levels[0].Decoder, StackConfig{}, noToken("rest")} {
		data, err := json.Marshal(value)
		if err != nil {
			t.Errorf("%T: %v", value, err)
			continue
		}
		back := reflect.New(reflect.TypeOf(value))
		if err := json.Unmarshal(data, back.Interface()); err != nil {
			t.Errorf("%T: %v", value, err)
			continue
		}
		if diff := cmp.Diff(value, back.Elem().Interface(), cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("comes back otherwise (-want, +got), by way of %s:\n%s", data, diff)
		}
	}
	for _, g := range goldens(t) {
		m, err := Load(g.dir)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(m.Config())
		if err != nil {
			t.Fatal(err)
		}
		var c Config
		if err := json.Unmarshal(data, &c); err != nil || !reflect.DeepEqual(c, m.Config()) {
			t.Errorf("%s: %+v, %v", g.dir, c, err)
		}
	}
	var c Config
	if err := json.Unmarshal([]byte(`{"model_type":"photon"}`), &c); err == nil {
		t.Error("half a config is taken")
	}
}

func TestEnums(t *testing.T) {
	for _, v := range []fmt.Stringer{StopReason(-1), StopReason(99), CacheType(-1), CacheType(7), WeightType(-3), WeightType(50), GenMode(9)} {
		if got := v.String(); !strings.Contains(got, "(") {
			t.Errorf("%d prints as %q", v, got)
		}
	}
	if got := fmt.Sprint(Going, StopMaxTokens, StopEOS, StopToken, StopString, StopFull); got != "going max tokens end of text stop token stop string full" {
		t.Error(got)
	}
}
