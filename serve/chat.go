package serve

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
)

// A ChatForm is how a conversation is laid out as a text that a model continues. Special tokens spelled in it are those
// tokens; what messages say is plain text. The zero form is none.
type ChatForm struct {
	System, User, Assistant Turn
	Stop                    string // ends an answer, and is no part of it
}

// Turn is what stands around a message.
type Turn struct{ Before, After string }

// forms are those that are known by name, or by marks that all stand in a model's chat_template; the first that fits is
// taken.
var forms = []struct {
	name  string
	marks []string
	ChatForm
}{
	{"chatml", []string{"<|im_start|>"}, ChatForm{
		Turn{"<|im_start|>system\n", "<|im_end|>\n"},
		Turn{"<|im_start|>user\n", "<|im_end|>\n"},
		Turn{"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_end|>"}},
	{"llama3", []string{"<|start_header_id|>", "<|eot_id|>"}, ChatForm{
		Turn{"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
		Turn{"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
		Turn{"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}, "<|eot_id|>"}},
	{"gemma", []string{"<start_of_turn>"}, ChatForm{ // which has no role for the system
		Turn{"<start_of_turn>user\n", "<end_of_turn>\n"},
		Turn{"<start_of_turn>user\n", "<end_of_turn>\n"},
		Turn{"<start_of_turn>model\n", "<end_of_turn>\n"}, "<end_of_turn>"}},
	{"phi3", []string{"<|user|>", "<|end|>"}, ChatForm{
		Turn{"<|system|>\n", "<|end|>\n"},
		Turn{"<|user|>\n", "<|end|>\n"},
		Turn{"<|assistant|>\n", "<|end|>\n"}, "<|end|>"}},
	{"zephyr", []string{"<|user|>", "eos_token"}, ChatForm{
		Turn{"<|system|>\n", "</s>\n"},
		Turn{"<|user|>\n", "</s>\n"},
		Turn{"<|assistant|>\n", "</s>\n"}, "</s>"}},
	{"plain", []string{"User:", "Assistant:"}, ChatForm{
		Turn{"", "\n\n"},
		Turn{"User: ", "\n"},
		Turn{"Assistant:", "\n"}, "\nUser:"}},
}

// NamedChatForm returns the form chatml, llama3, gemma, phi3, zephyr or plain.
func NamedChatForm(name string) (ChatForm, error) {
	var names []string
	for _, f := range forms {
		if f.name == name {
			return f.ChatForm, nil
		}
		names = append(names, f.name)
	}
	return ChatForm{}, fmt.Errorf("serve: no chat form %q: give one of %s: %w", name, strings.Join(names, ", "),
		photon.ErrInvalid)
}

// ChatFormOf recognises the form of a chat_template, the Jinja text in a model's chat_template.jinja or
// tokenizer_config.json. One of no known form is an error that matches ErrUnsupported.
func ChatFormOf(template string) (ChatForm, error) {
next:
	for _, f := range forms {
		for _, mark := range f.marks {
			if !strings.Contains(template, mark) {
				continue next
			}
		}
		return f.ChatForm, nil
	}
	return ChatForm{},
		fmt.Errorf("serve: the chat_template is of none of the forms known here (ChatML, Llama 3, Gemma, Phi 3, "+
			"Zephyr, User:/Assistant:): %w", photon.ErrUnsupported)
}

var specialMark = regexp.MustCompile(`<[|/]?[a-z_0-9]+\|?>`)

// Check reports why a model with this tokenizer cannot be served in the form: ErrUnsupported where it lacks tokens.
func (f ChatForm) Check(t *photon.Tokenizer) error {
	if f != (ChatForm{}) && t == nil {
		return fmt.Errorf("serve: a chat form: the model has no tokenizer.json: %w", photon.ErrUnsupported)
	}
	for _, turn := range []Turn{f.User, f.Assistant} {
		for _, mark := range specialMark.FindAllString(turn.Before+turn.After, -1) {
			if _, ok := t.TokenID(mark); !ok {
				return fmt.Errorf("serve: the chat form has %s, the model's tokenizer has not: choose the form that the model "+
					"was trained with: %w", mark, photon.ErrUnsupported)
			}
		}
	}
	return nil
}

type message struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// encode lays out a conversation up to where the answer begins. What messages say cannot spell special tokens.
func (f ChatForm) encode(t *photon.Tokenizer, messages []message) (ids []int) {
	plain := ""
	flush := func() {
		if plain != "" {
			ids, plain = append(ids, t.EncodeText(plain)...), ""
		}
	}
	markup := func(text string) {
		for text != "" {
			at := specialMark.FindStringIndex(text)
			if at == nil {
				plain += text
				return
			}
			plain += text[:at[0]]
			if id, ok := t.TokenID(text[at[0]:at[1]]); ok {
				flush()
				ids = append(ids, id)
			} else {
				plain += text[at[0]:at[1]]
			}
			text = text[at[1]:]
		}
	}
	for _, m := range messages {
		turn := map[string]Turn{"system": f.System, "user": f.User, "assistant": f.Assistant}[m.Role]
		before := turn.Before
		if m.Role == "assistant" && f.afterColon() {
			before += " "
		}
		markup(before)
		plain += string(m.Content)
		markup(turn.After)
	}
	markup(f.Assistant.Before)
	flush()
	return ids
}

// afterColon says that the model writes the space before its answer.
func (f ChatForm) afterColon() bool { return strings.HasSuffix(f.Assistant.Before, ":") }

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	sampling
	Messages            []chatMessage `json:"messages"`
	MaxCompletionTokens *int          `json:"max_completion_tokens"`
	LogProbs            bool          `json:"logprobs"`
	TopLogProbs         *int          `json:"top_logprobs"`
}

type chatMessage struct {
	message
	Name    string `json:"name"`    // of a participant: not told to the model
	Refusal string `json:"refusal"` // as answers have it
}

func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	var body chatRequest
	if err := s.read(w, r, &body); err != nil {
		s.fail(w, err)
		return
	}
	if body.MaxCompletionTokens != nil {
		body.MaxTokens = body.MaxCompletionTokens
	}
	q, err := s.query(&body.sampling, -1)
	if err == nil {
		q.prompts, err = s.conversation(body.Messages)
	}
	switch top := 0; {
	case err != nil:
	case body.LogProbs:
		if body.TopLogProbs != nil {
			top = *body.TopLogProbs
		}
		err = q.askLogProbs("top_logprobs", top)
	case body.TopLogProbs != nil:
		err = badRequest("top_logprobs", "top_logprobs without logprobs: ask for logprobs too")
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	if id, ok := s.m.Tokenizer().TokenID(s.o.chat.Stop); ok {
		q.options = append(q.options, photon.StopTokens(id))
	} else if stop := s.o.chat.Stop; stop != "" {
		q.options = append(q.options, photon.Stop(append([]string{stop}, body.Stop...)...))
	}
	q.id, q.shape = "chatcmpl-"+q.id, &reply{t: s.m.Tokenizer(), trim: s.o.chat.afterColon(), begun: map[int]bool{}}
	s.answer(w, r, q)
}

// conversation is the prompt of a chat.
func (s *server) conversation(list []chatMessage) ([][]int, error) {
	if s.o.chat == (ChatForm{}) {
		e := badRequest("", "%s continues texts and is not served as a chat model: use /v1/completions, "+
			"or have the server started with a chat form", s.o.name)
		e.code = "no_chat_form"
		return nil, e
	}
	if len(list) == 0 {
		return nil, badRequest("messages", "there are no messages: give one")
	}
	var messages []message
	for i, m := range list {
		if m.Role == "developer" {
			m.Role = "system"
		}
		if m.Role != "system" && m.Role != "user" && m.Role != "assistant" {
			return nil, badRequest("messages", "message %d is of role %q: give system, user or assistant", i, m.Role)
		}
		messages = append(messages, m.message)
	}
	ids := append(slices.Clip(s.prefix), s.o.chat.encode(s.m.Tokenizer(), messages)...)
	return [][]int{ids}, nil
}

// reply words the answers of /v1/chat/completions.
type reply struct {
	t     *photon.Tokenizer
	trim  bool         // the answer follows a colon: the white space behind that is not part of it
	begun map[int]bool // by choice: it has text
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  *chatText     `json:"message,omitempty"`
	Delta    *chatText     `json:"delta,omitempty"`
	LogProbs *chatLogProbs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
}

type chatText struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
	Refusal *string `json:"refusal,omitempty"`
}

type chatLogProbs struct {
	Content []chatToken `json:"content"`
}

type chatToken struct {
	chatProb
	Top []chatProb `json:"top_logprobs"`
}

type chatProb struct {
	Token   string  `json:"token"`
	LogProb float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func (c *reply) object(stream bool) string {
	if stream {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (c *reply) choice(p *piece, stream bool) any {
	text := p.s
	if c.trim && !c.begun[p.text] {
		text = strings.TrimLeft(text, " \n")
		c.begun[p.text] = text != ""
	}
	out := chatChoice{Index: p.text, Finish: orNull(p.finish)}
	said := &chatText{}
	if p.begins {
		said.Role = "assistant"
	}
	if p.begins || text != "" {
		said.Content = &text
	}
	if stream {
		out.Delta = said
	} else {
		out.Message = said
	}
	for _, t := range p.tokens {
		if t.silent {
			continue
		}
		entry := chatToken{chatProb: c.prob(t.TokenProb), Top: []chatProb{}}
		for _, other := range t.top {
			entry.Top = append(entry.Top, c.prob(other))
		}
		if out.LogProbs == nil {
			out.LogProbs = &chatLogProbs{}
		}
		out.LogProbs.Content = append(out.LogProbs.Content, entry)
	}
	return out
}

func (c *reply) prob(p photon.TokenProb) chatProb {
	out := chatProb{Token: tokenName(c.t, p.ID), LogProb: finite(p.LogProb)}
	for _, b := range c.t.Bytes(p.ID) {
		out.Bytes = append(out.Bytes, int(b))
	}
	return out
}
