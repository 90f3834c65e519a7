module ipsec-quick

go 1.26
