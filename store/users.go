package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
)

// Grant lets a user read, or read and write, one key or all keys below a prefix.
type Grant struct {
	Key    string
	Prefix bool
	Write  bool
}

// NodeGrants is all that a node may do in the store: read what is meant for it
// and who serves what, write what it says of itself. A gateway reads all routes
// too, and the certificates and users that are sealed to it.
func NodeGrants(spec cluster.NodeSpec) []Grant {
	n := spec.ID
	out := []Grant{
		{Key: PlacementPrefix(n), Prefix: true},
		{Key: SealedPrefix(n), Prefix: true},
		{Key: PrefixEndpoints, Prefix: true},
		{Key: PrefixNodeNets, Prefix: true},
		{Key: PrefixServers, Prefix: true},
		{Key: NodeInfoKey(n), Write: true},
		{Key: AliveKey(n), Write: true},
		{Key: StatusPrefix(n), Prefix: true, Write: true},
		{Key: AgentAckKey(n), Write: true},
	}
	if spec.Gateway {
		out = append(out,
			Grant{Key: TraefikRoot, Prefix: true},
			Grant{Key: GatewayFilesPrefix(n), Prefix: true},
			Grant{Key: GatewayAckKey(n), Write: true},
		)
	}
	return out
}

// Allows reports whether grants open a range of keys, as etcd's own roles do: one key,
// or with end those from key until before it ("\x00": all from key on).
func Allows(grants []Grant, key, end string, write bool) bool {
	return slices.ContainsFunc(grants, func(g Grant) bool {
		switch {
		case write && !g.Write:
			return false
		case !g.Prefix:
			return key == g.Key && (end == "" || end == key+"\x00")
		case g.Key == "":
			return true
		}
		return strings.HasPrefix(key, g.Key) && (end == "" || end > key && end <= clientv3.GetPrefixRangeEnd(g.Key))
	})
}

// rootUser is etcd's own name for who may do everything; the control plane's
// certificate carries it.
const rootUser = "root"

// Secure makes etcd ask who a client is, by the common name of its certificate.
// It may be called at every start.
func (e *Etcd) Secure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if s, err := e.client.AuthStatus(ctx); err == nil && s.Enabled {
		return nil
	}
	_, err := e.client.UserAddWithOptions(ctx, rootUser, "", &clientv3.UserAddOptions{NoPassword: true})
	if err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return wrap(err, "make etcd's root user")
	}
	if _, err := e.client.UserGrantRole(ctx, rootUser, rootUser); err != nil {
		return wrap(err, "give etcd's root user its role")
	}
	_, err = e.client.AuthEnable(ctx)
	return wrap(err, "make etcd ask who its clients are")
}

// AddUser makes a user, known by the common name of its certificate, with these
// grants and no others. It may be repeated, and then changes what differs.
func (e *Etcd) AddUser(ctx context.Context, name string, grants []Grant) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if name == rootUser || name == "" {
		return cluster.Invalidf("no user may be named %q", name)
	}
	if _, err := e.client.RoleAdd(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return wrap(err, "make the role "+name)
	}
	if err := e.setGrants(ctx, name, grants); err != nil {
		return err
	}
	_, err := e.client.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
	if err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return wrap(err, "make the user "+name)
	}
	_, err = e.client.UserGrantRole(ctx, name, name)
	return wrap(err, "give "+name+" its role")
}

// Users returns the names of all users.
func (e *Etcd) Users(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.client.UserList(ctx)
	if err != nil {
		return nil, wrap(err, "list etcd's users")
	}
	return r.Users, nil
}

// permission is a grant as etcd keeps it.
type permission struct {
	key, end string
	kind     clientv3.PermissionType
}

// setGrants makes these the role's only grants.
func (e *Etcd) setGrants(ctx context.Context, role string, grants []Grant) error {
	want := map[permission]bool{}
	for _, g := range grants {
		p := permission{key: g.Key, kind: clientv3.PermissionType(clientv3.PermRead)}
		if g.Write {
			p.kind = clientv3.PermissionType(clientv3.PermReadWrite)
		}
		if g.Prefix {
			p.end = clientv3.GetPrefixRangeEnd(g.Key)
		}
		want[p] = true
	}
	r, err := e.client.RoleGet(ctx, role)
	if err != nil {
		return wrap(err, "read the role "+role)
	}
	have := map[permission]bool{}
	for _, x := range r.Perm {
		p := permission{string(x.Key), string(x.RangeEnd), clientv3.PermissionType(x.PermType)}
		have[p] = true
		if want[p] {
			continue
		}
		if _, err := e.client.RoleRevokePermission(ctx, role, p.key, p.end); err != nil {
			return wrap(err, fmt.Sprintf("close %s to %s", p.key, role))
		}
	}
	for p := range want {
		if have[p] {
			continue
		}
		if _, err := e.client.RoleGrantPermission(ctx, role, p.key, p.end, p.kind); err != nil {
			return wrap(err, fmt.Sprintf("let %s use %s", role, p.key))
		}
	}
	return nil
}

// RemoveUser refuses a user from now on, on connections that stand too.
func (e *Etcd) RemoveUser(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if _, err := e.client.UserDelete(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrUserNotFound) {
		return wrap(err, "remove the user "+name)
	}
	if _, err := e.client.RoleDelete(ctx, name); err != nil && !errors.Is(err, rpctypes.ErrRoleNotFound) {
		return wrap(err, "remove the role "+name)
	}
	return nil
}
