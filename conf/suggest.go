package conf

// nearest is the word most like got, or "" when none is much like it.
func nearest(got string, words []string) string {
	best, least := "", max(2, len(got)/3)+1
	for _, w := range words {
		if d := distance(got, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// didYouMean is the nearest word as a remark to follow the wrong one.
func didYouMean(got string, words []string) string {
	if w := nearest(got, words); w != "" {
		return " (did you mean \"" + w + "\"?)"
	}
	return ""
}

// maxWord bounds what distance works on: no word known here is longer.
const maxWord = 64

// distance is how many characters must be put in, left out, replaced or
// swapped with their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > maxWord || len(b) > maxWord {
		return maxWord
	}
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		older, old, row = old, row, older
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(old[j]+cost, old[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
