module ipsec-quick

go 1.26.0

require (
	filippo.io/bigmod v0.1.0 // indirect
	github.com/BurntSushi/toml v1.6.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0
)
