// Command relying is a relying party by go-oidc and golang.org/x/oauth2. It speaks lines of JSON (tests/support/house.py).
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

type asked struct {
	Do          string            `json:"do"`
	Issuer      string            `json:"issuer"`
	ClientID    string            `json:"client_id"`
	Secret      string            `json:"secret"`
	RedirectURI string            `json:"redirect_uri"`
	Method      string            `json:"method"`
	Skew        int               `json:"skew"`
	Prompt      string            `json:"prompt"`
	MaxAge      int               `json:"max_age"`
	URL         string            `json:"url"`
	Verifier    string            `json:"verifier"`
	Token       string            `json:"token"`
	Parameters  map[string]string `json:"parameters"`
}

type party struct {
	provider *oidc.Provider
	checks   *oidc.IDTokenVerifier
	config   oauth2.Config
	verifier string
	state    string
	nonce    string
	token    *oauth2.Token
	claims   map[string]any
	issuer   string
	device   *oauth2.DeviceAuthResponse
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	var me party
	for lines.Scan() {
		var said asked
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			panic(err)
		}
		done, err := me.do(context.Background(), said)
		if err == nil {
			out.Encode(map[string]any{"done": done})
			continue
		}
		told := map[string]any{"because": err.Error()}
		var answer *oauth2.RetrieveError
		if errors.As(err, &answer) {
			told["error"] = answer.ErrorCode
		}
		var from answerError
		if errors.As(err, &from) {
			told["error"] = from.code
		}
		out.Encode(map[string]any{"error": fmt.Sprintf("%T", err), "message": err.Error(), "told": told})
	}
}

type answerError struct{ code string }

func (e answerError) Error() string { return "the issuer says " + e.code }

func (p *party) do(ctx context.Context, said asked) (any, error) {
	switch said.Do {
	case "discover":
		return p.discover(ctx, said)
	case "start":
		return p.start(said), nil
	case "finish":
		return p.finish(ctx, said)
	case "userinfo":
		info, err := p.provider.UserInfo(ctx, oauth2.StaticTokenSource(p.token))
		if err != nil {
			return nil, err
		}
		var found map[string]any
		if err := info.Claims(&found); err != nil {
			return nil, err
		}
		if info.Subject != p.claims["sub"] {
			return nil, errors.New("userinfo is about somebody else")
		}
		return found, nil
	case "refresh":
		return p.refresh(ctx, said)
	case "own":
		form := url.Values{}
		for name, value := range said.Parameters {
			form.Set(name, value)
		}
		how := clientcredentials.Config{ClientID: p.config.ClientID, ClientSecret: p.config.ClientSecret, TokenURL: p.config.Endpoint.TokenURL, EndpointParams: form}
		token, err := how.Token(ctx)
		if err != nil {
			return nil, err
		}
		p.token = token
		return map[string]any{"expires_in": token.Extra("expires_in"), "access": token.AccessToken}, nil
	case "device":
		device, err := p.config.DeviceAuth(ctx)
		if err != nil {
			return nil, err
		}
		p.device = device
		return map[string]any{"user_code": device.UserCode, "link": device.VerificationURIComplete, "interval": device.Interval}, nil
	case "poll":
		token, err := p.config.DeviceAccessToken(ctx, p.device)
		if err != nil {
			return nil, err
		}
		return p.keep(ctx, token, "")
	case "access":
		return p.token.AccessToken, nil
	case "signed":
		raw, _ := p.token.Extra("id_token").(string)
		head, err := base64.RawURLEncoding.DecodeString(strings.SplitN(raw, ".", 2)[0])
		if err != nil {
			return nil, err
		}
		var header map[string]any
		err = json.Unmarshal(head, &header)
		return header, err
	case "later":
		return nil, nil // it asks for a key that it does not know at once, however late it is
	}
	return nil, fmt.Errorf("%s is nothing that it can do", said.Do)
}

func (p *party) discover(ctx context.Context, said asked) (any, error) {
	provider, err := oidc.NewProvider(ctx, said.Issuer)
	if err != nil {
		return nil, err
	}
	now := func() time.Time { return time.Now().Add(time.Duration(said.Skew) * time.Second) }
	p.provider, p.issuer = provider, said.Issuer
	p.checks = provider.Verifier(&oidc.Config{ClientID: said.ClientID, Now: now})
	p.config = oauth2.Config{
		ClientID:     said.ClientID,
		ClientSecret: said.Secret,
		Endpoint:     provider.Endpoint(),
		RedirectURL:  said.RedirectURI,
		Scopes:       []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess},
	}
	p.config.Endpoint.AuthStyle = map[string]oauth2.AuthStyle{
		"client_secret_post": oauth2.AuthStyleInParams,
		"none":               oauth2.AuthStyleInParams,
	}[said.Method]
	var found map[string]any
	err = provider.Claims(&found)
	return found, err
}

func (p *party) start(said asked) string {
	p.verifier, p.state, p.nonce = oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(p.verifier), oidc.Nonce(p.nonce)}
	if said.Prompt != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", said.Prompt))
	}
	return p.config.AuthCodeURL(p.state, options...)
}

func (p *party) finish(ctx context.Context, said asked) (any, error) {
	back, err := url.Parse(said.URL)
	if err != nil {
		return nil, err
	}
	query := back.Query()
	// The library leaves the answer's parameters to the program (RFC 9207 section 2.4).
	if query.Get("iss") != p.issuer {
		return nil, errors.New("iss of the answer is another issuer's")
	}
	if query.Get("state") != p.state {
		return nil, errors.New("the state is not ours")
	}
	if query.Has("error") {
		return nil, answerError{query.Get("error")}
	}
	verifier := p.verifier
	if said.Verifier != "" {
		verifier = said.Verifier
	}
	token, err := p.config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, err
	}
	return p.keep(ctx, token, p.nonce)
}

func (p *party) refresh(ctx context.Context, said asked) (any, error) {
	before := said.Token
	if before == "" {
		before = p.token.RefreshToken
	}
	token, err := p.config.TokenSource(ctx, &oauth2.Token{RefreshToken: before}).Token()
	if err != nil {
		return nil, err
	}
	found, err := p.keep(ctx, token, "")
	if err != nil {
		return nil, err
	}
	found["before"], found["after"] = before, token.RefreshToken
	return found, nil
}

// keep checks the ID token, of which a refresh may repeat the nonce or leave it out.
func (p *party) keep(ctx context.Context, token *oauth2.Token, nonce string) (map[string]any, error) {
	raw, _ := token.Extra("id_token").(string)
	checked, err := p.checks.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if nonce != "" && checked.Nonce != nonce {
		return nil, errors.New("the nonce is not ours")
	}
	if checked.AccessTokenHash != "" {
		if err := checked.VerifyAccessToken(token.AccessToken); err != nil {
			return nil, err
		}
	}
	p.token, p.claims = token, map[string]any{}
	if err := checked.Claims(&p.claims); err != nil {
		return nil, err
	}
	return map[string]any{"claims": p.claims, "expires_in": token.ExpiresIn, "token_type": token.TokenType, "refresh": token.RefreshToken != ""}, nil
}
