# fish completion for ipsec-quick(8)

function __ipsec_quick
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    for line in ($words[1] __complete -- $words[2..] "$current" 2>/dev/null)
        switch $line
            case ':files*.toml'
                __fish_complete_path "$current" | string match --regex '^[^\t]*(?:\.toml|/)(?:\t.*)?$'
            case ':files*'
                __fish_complete_path "$current"
            case '*'
                echo $line
        end
    end
end
complete --command ipsec-quick --no-files --arguments '(__ipsec_quick)'
