// What a workload asks of its enclave. The manifest has an open register, a peer `sibling`,
// a secret `token` with `api = true`, and `health = { notify = true }`.
//
// usage: example [REGISTER]
package main

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"

	"example.com/enclaveapi"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	register := int64(17)
	if len(os.Args) > 1 {
		given, err := strconv.ParseInt(os.Args[1], 10, 64)
		if err != nil {
			return err
		}
		register = given
	}
	// The address is in ENCLAVE_API.
	api, err := enclaveapi.New("")
	if err != nil {
		return err
	}

	own, err := api.ReadMeasurements(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("measurements: %s, self-check %s\n", own.Name, own.SelfCheck)
	configuration, err := api.ReadRuntimeConfiguration(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("runtime configuration: %d bytes\n", len(configuration))

	// A document for whoever has sent a nonce. Here the enclave is its own peer.
	nonce, err := api.Random(ctx, 32)
	if err != nil {
		return err
	}
	document, err := api.Attest(ctx, enclaveapi.AttestRequest{
		Nonce:     nonce,
		PublicKey: []byte("a key of the workload's"),
	})
	if err != nil {
		return err
	}
	verdict, err := api.Verify(ctx, enclaveapi.VerifyRequest{
		Document: document,
		Peer:     "sibling",
		Nonce:    nonce,
	})
	if err != nil {
		return err
	}
	if accepted := verdict.Accepted; accepted != nil {
		fmt.Printf("document: accepted, with the key b%q\n", accepted.PublicKey)
	} else {
		fmt.Printf("document: refused: %s: %s\n", verdict.Refused.Rule, verdict.Refused.Reason)
	}

	// A key that never leaves the init, and its signature.
	key, err := api.MakeIdentity(ctx)
	if err != nil {
		return err
	}
	signature, err := api.Sign(ctx, enclaveapi.SignRequest{Message: []byte("answer: 42")})
	if err != nil {
		return err
	}
	fmt.Printf("signature: %s, by a key of %d bytes\n", signature.Algorithm, len(key.PublicKey))

	var refused *enclaveapi.Error
	secret, err := api.ReadSecret(ctx, "token", enclaveapi.ReadSecretOptions{Wait: 5})
	switch {
	case errors.As(err, &refused):
		fmt.Printf("secret: %s\n", refused.Code)
	case err != nil:
		return err
	default:
		fmt.Printf("secret: %d bytes\n", len(secret))
	}

	// What is loaded at run time, measured.
	digest := sha512.Sum384([]byte("model"))
	measured, err := api.ExtendRegister(ctx, register, enclaveapi.ExtendRequest{Data: digest[:]})
	if err != nil {
		return err
	}
	fmt.Printf("register: %s\n", measured.Value)
	if _, err := api.LockRegister(ctx, register); err != nil {
		return err
	}
	_, err = api.ExtendRegister(ctx, register, enclaveapi.ExtendRequest{Data: []byte("more")})
	if !errors.As(err, &refused) {
		return fmt.Errorf("a locked register was extended: %v", err)
	}
	fmt.Printf("extended again: status %d, %s\n", refused.Status, refused.Code)

	if err := api.Notify(ctx, enclaveapi.Notification{State: "ready", Status: "serving"}); err != nil {
		return err
	}
	readiness, err := api.ReadReadiness(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("restarts: %d\n", readiness.Restarts)
	return nil
}
