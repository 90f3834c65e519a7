#compdef ipsec-quick
# zsh completion for ipsec-quick(8)

_ipsec_quick() {
	local line files
	local -a found
	for line in "${(@f)$("$words[1]" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
		if [[ $line == :files$'\t'* ]]; then
			files=${line#*$'\t'}
		elif [[ -n $line ]]; then
			found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
		fi
	done
	_describe ipsec-quick found
	[[ -z $files ]] || _files -g "$files"
}

# As a file in $fpath this is the function's body; else it is sourced.
if [[ $funcstack[1] == _ipsec-quick ]]; then
	_ipsec_quick
else
	compdef _ipsec_quick ipsec-quick
fi
