//go:build !amd64

// Package gcm is AES-GCM for CPUs of amd64 that encrypt four blocks with one
// instruction. There are none here.
package gcm

import (
	"crypto/cipher"
	"errors"
)

// Supported is false.
func Supported() bool { return false }

// New fails.
func New([]byte) (cipher.AEAD, error) { return nil, errors.ErrUnsupported }
