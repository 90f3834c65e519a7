package esp

import (
	"reflect"
	"unsafe"
)

// Wipe overwrites what the transform holds of its keys. No Seal or Open may be
// under way, and none may follow.
//
// Go's ciphers offer no way to do that, and their objects hold key schedules
// that lie on the heap until other data happens to take their place. So the
// memory of the objects themselves is zeroed. Copies that a compiler or a kernel
// has made on a stack or in registers are out of reach.
func (t *Transform) Wipe() {
	if t.aead != nil {
		wipeObject(t.aead)
	}
	t.salt = 0
	if t.cbc != nil {
		wipeObject(t.cbc.block)
		wipeObject(t.cbc.encrypt)
		wipeObject(t.cbc.decrypt)
		clear(t.cbc.mac.inner)
		clear(t.cbc.mac.outer)
	}
}

// wipeObject zeroes what v points to, if it is plain data: a pointer in it would
// be someone else's, and the garbage collector has to know of each that changes.
func wipeObject(v any) {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || !plain(p.Type().Elem()) {
		return
	}
	clear(unsafe.Slice((*byte)(p.UnsafePointer()), p.Type().Elem().Size()))
}

// plain tells types without pointers.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	default:
		return false
	}
}
