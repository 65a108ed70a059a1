package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/serve"
)

const serveNotes = `
Speaks OpenAI's API: /v1/completions, /v1/chat/completions, /v1/models; also /tokenize, /detokenize, /health, /metrics
(Prometheus) and, at /, a page to try it. Other machines are answered with an -addr like :8080 only.
If the environment has PHOTON_TOKEN, requests must bring it: Authorization: Bearer TOKEN.
Ctrl-C, SIGTERM or SIGHUP lets texts end for the time of -grace; the second one ends the program at once.
`

func setupServe(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	model.declare(f)
	addr := f.String("addr", "127.0.0.1:8080", "`host:port` to listen on; port 0: any that is free")
	name := f.String("name", "", "what to call the model; empty: its directory's name, or stories")
	chat := f.String("chat", "auto",
		"`form` of conversations: chatml, llama3, gemma, phi3, zephyr, plain (User: Assistant:), "+
			"none, or auto: the model's chat_template")
	texts := f.Int("texts", 64, "run at most this many texts at a time")
	waiting := f.Int("waiting", 256, "let at most this many more wait; others are refused with 429")
	tokens := f.Int("max-tokens", 32768, "bound on the tokens of a text, prompt included")
	limit := f.Duration("max-time", 10*time.Minute, "bound on the time of a request")
	body := f.Int64("max-body", 4<<20, "bound on the bytes of a request")
	state := f.Int64("max-state", 0, "bound on the bytes of keys and values of all texts; 0: none")
	prefixes := f.Int64("prefixes", 0, "keep the states of texts that were read in so many `bytes`, for requests that "+
		"begin alike; 0: none")
	grace := f.Duration("grace", 10*time.Second, "how long texts may go on when the server is told to end")
	f.Usage = func() { fmt.Fprint(f.Output(), serveNotes) }
	return func(c *console, args []string) error {
		token := os.Getenv("PHOTON_TOKEN")
		switch {
		case len(args) > 0:
			return usageError{fmt.Errorf("wants flags only, not %q", args[0])}
		case token != strings.TrimSpace(token) || strings.ContainsFunc(token, unicode.IsControl):
			return usageError{errors.New("PHOTON_TOKEN begins or ends with white space, or has a control character, " +
				"which no request can bring: give another, or unset it")}
		}
		for _, bound := range []struct {
			name         string
			value, least int64
		}{
			{"texts", int64(*texts), 1}, {"waiting", int64(*waiting), 0}, {"max-tokens", int64(*tokens), 1},
			{"max-time", int64(*limit), 1}, {"grace", int64(*grace), 0},
			{"max-body", *body, 1}, {"max-state", *state, 0}, {"prefixes", *prefixes, 0},
		} {
			if bound.value < bound.least {
				return usageError{fmt.Errorf("-%s %v: want %s", bound.name, f.Lookup(bound.name).Value,
					[]string{"0 or more", "more than 0"}[bound.least])}
			}
		}
		if err := checkAddress(*addr); err != nil {
			return usageError{fmt.Errorf("-addr %s: %w: want host:port, as in 127.0.0.1:8080", *addr, err)}
		}
		form, err := chatForm(*chat, &model)
		if err != nil {
			return err
		}
		if err := model.recommend(); err != nil {
			return err
		}
		told := interruptible()
		m, err := model.load(told, c)
		if err != nil {
			return err
		}
		defer m.Close()
		if *name == "" {
			*name = "stories"
			if model.dir != "" {
				path, err := filepath.Abs(model.dir)
				if err != nil {
					return err
				}
				*name = filepath.Base(path)
			}
		}
		if err := form.Check(m.Tokenizer()); err != nil {
			return err
		}
		if least := m.Config().StateBytes(1, model.cache); *state > 0 && *state < least {
			return usageError{fmt.Errorf("-max-state %d: a text of one token takes %d bytes: raise it", *state, least)}
		}
		handler := serve.Handler(m, serve.Name(*name), serve.BearerToken(token), serve.Chat(form), serve.MaxTexts(*texts,
			*waiting),
			serve.MaxTokens(*tokens), serve.MaxTime(*limit), serve.MaxBody(*body), serve.MaxStateBytes(*state),
			serve.KeepPrefixes(*prefixes))
		listener, err := net.Listen("tcp", *addr)
		if err != nil {
			return fmt.Errorf("%w: choose another -addr", err)
		}
		switch local := listener.Addr().(*net.TCPAddr).IP.IsLoopback(); {
		case token != "":
		case local:
			handler = localHosts(handler)
		default:
			fmt.Fprintln(c.stderr, "photon: serve: anyone who can reach this machine can use the server: "+
				"set PHOTON_TOKEN to ask for a token")
		}
		fmt.Fprintf(c.stdout, "serving %s on http://%s/\n", model.name(), listener.Addr())
		return listen(told, c, listener, handler, *grace)
	}
}

// chatForm is the form of that name, or the model's own; none where it has none that is known.
func chatForm(name string, model *modelFlags) (serve.ChatForm, error) {
	switch name {
	case "none":
		return serve.ChatForm{}, nil
	case "auto":
		files, err := model.files()
		if err != nil {
			return serve.ChatForm{}, err
		}
		form, err := findChatForm(files)
		if errors.Is(err, photon.ErrUnsupported) {
			return serve.ChatForm{}, nil
		}
		return form, err
	}
	return serve.NamedChatForm(name)
}

// checkAddress refuses what has not the form of an address, before a model is loaded for it.
func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if wrong := new(net.AddrError); errors.As(err, &wrong) {
		return errors.New(wrong.Err)
	}
	_, err = net.LookupPort("tcp", port)
	return err
}

// listen serves until told ends, and then as long as texts go on, but no longer than grace.
func listen(told context.Context, c *console, listener net.Listener, handler http.Handler, grace time.Duration) error {
	requests, end := context.WithCancel(context.Background())
	defer end()
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(c.stderr, "photon: serve: ", 0),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-told.Done():
	}
	patience, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if server.Shutdown(patience) == nil {
		return nil
	}
	end() // texts end within a step
	patience, cancel = context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(patience) == nil {
		return nil
	}
	return server.Close()
}

// localHosts refuses requests to a local server under another name than a local one: a page of another site whose name
// is made to lead here could read the answers.
func localHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if !strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") && (err != nil || !ip.IsLoopback()) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusMisdirectedRequest)
			io.WriteString(w, `{"error":{"message":"this server is for programs of its own machine: ask it as `+
				`localhost, or start it with an -addr that others reach, such as :8080",`+
				`"type":"invalid_request_error","param":null,"code":null}}`+"\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}
