# bash completion for ipsec-quick(8)
# shellcheck shell=bash

_ipsec_quick() {
	local line=${COMP_LINE:0:COMP_POINT} words word about current before
	read -ra words <<<"$line"
	[[ $line != *[[:blank:]] ]] || words+=('')
	current=${words[-1]}
	# bash has words of its own, which end at a = too, and replaces the last alone.
	before=${current%"${COMP_WORDS[COMP_CWORD]}"}
	COMPREPLY=()
	while IFS=$'\t' read -r word about; do
		if [[ $word == :files ]]; then
			compopt -o filenames 2>/dev/null # fails where nobody is completing
			while read -r word; do
				COMPREPLY+=("$word")
			done < <(compgen -f -X "!$about" -- "$current"; compgen -d -- "$current")
		elif [[ $word == "$current"* ]]; then
			COMPREPLY+=("${word#"$before"}")
		fi
	done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _ipsec_quick ipsec-quick
