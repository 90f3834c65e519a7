package wire

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"
)

// parseSource parses this package's files but for the tests.
func parseSource(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}

type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// Only reader.go and append.go index and slice; and nothing in this package
// makes a slice whose size could come from the wire.
func TestIndexing(t *testing.T) {
	fset, files := parseSource(t)
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: noImporter{}, Error: func(error) {}}
	_, _ = config.Check("wire", fset, files, info) // types of our own are all it takes
	seen := 0
	for _, f := range files {
		name := fset.Position(f.Pos()).Filename
		ast.Inspect(f, func(n ast.Node) bool {
			where := func() string { return fset.Position(n.Pos()).String() }
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "make" {
					t.Errorf("%s: make", where())
				}
				return true
			case *ast.SliceExpr:
			case *ast.IndexExpr:
				if x := info.Types[n.X].Type; x != nil {
					if _, ok := x.Underlying().(*types.Map); ok {
						return true
					}
				}
			default:
				return true
			}
			seen++
			if name != "reader.go" && name != "append.go" {
				t.Errorf("%s: an index outside of reader.go and append.go", where())
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("no index found at all: the test does not see them")
	}
}
