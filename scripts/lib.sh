# Shared by the scripts: saying what happens, and asking before the system changes.

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# allow WHAT WHY: ask when a terminal is there and YES is unset; else proceed.
allow() {
	say "$1"
	printf '    why: %s\n' "$2"
	if [ -z "${YES:-}" ] && [ -t 0 ] && [ -t 1 ]; then
		printf '    go ahead? [Y/n] '
		read -r answer
		case "$answer" in n* | N*) die "stopped; nothing was changed by this step" ;; esac
	fi
}

cache() { printf '%s/fairlead' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

docker_answers() { [ -S "${1:-/var/run/docker.sock}" ] && curl -fsS --max-time 3 --unix-socket "${1:-/var/run/docker.sock}" http://docker/_ping >/dev/null 2>&1; }

root() { [ "$(id -u)" = 0 ] || die "this step needs root: run it with sudo"; }
