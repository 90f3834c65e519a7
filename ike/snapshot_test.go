package ike

import (
	"encoding/gob"
	"reflect"
	"testing"
	"time"

	"ipsec-quick/ike/suite"
)

// TestNoMapIsDecoded: of what gob decodes for us nothing is a map, whose decoder
// allocates what a count of entries asks for before it has seen one.
func TestNoMapIsDecoded(t *testing.T) {
	seen := map[reflect.Type]bool{}
	decoder := reflect.TypeFor[gob.GobDecoder]()
	var look func(at string, of reflect.Type)
	look = func(at string, of reflect.Type) {
		if seen[of] || reflect.PointerTo(of).Implements(decoder) && of != reflect.TypeFor[children]() {
			return
		}
		seen[of] = true
		switch {
		case of == reflect.TypeFor[children](): // GobDecode reads a list
			look(at, reflect.TypeFor[child]())
		case of.Kind() == reflect.Map:
			t.Errorf("%s is a %v", at, of)
		case of.Kind() == reflect.Pointer, of.Kind() == reflect.Slice, of.Kind() == reflect.Array:
			look(at, of.Elem())
		case of.Kind() == reflect.Struct:
			for i := range of.NumField() {
				if f := of.Field(i); f.IsExported() {
					look(at+"."+f.Name, f.Type)
				}
			}
		default:
		}
	}
	for _, v := range []any{snapshot{}, ikeSA{}, Claim{}, authTask{}, childTask{}, ikeTask{}, deleteTask{}, dpdTask{}} {
		look(reflect.TypeOf(v).Name(), reflect.TypeOf(v))
	}
	for _, of := range []reflect.Type{reflect.TypeFor[child](), reflect.TypeFor[suite.IKEKeys](), reflect.TypeFor[handshake]()} {
		if !seen[of] {
			t.Errorf("%v was not looked at", of)
		}
	}
	if seen[reflect.TypeFor[time.Time]()] {
		t.Error("a type that decodes itself was looked into")
	}
}

// TestTwoChildrenOfOneSPI: a list can hold what a map cannot.
func TestTwoChildrenOfOneSPI(t *testing.T) {
	c := child{ChildSA: ChildSA{SPIIn: 7}}
	b, err := children{1: &c, 2: &c}.GobEncode()
	if err != nil {
		t.Fatal(err)
	}
	var cs children
	if cs.GobDecode(b) == nil {
		t.Error("two Child SAs with one SPI are taken")
	}
}
