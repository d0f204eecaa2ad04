package store

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Alarms says in words which alarms the cluster's members have raised. To take
// them back is up to whoever runs that etcd.
func (e *Etcd) Alarms(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.client.AlarmList(ctx)
	if err != nil {
		return nil, wrap(err, "list the alarms of etcd")
	}
	var out []string
	for _, a := range r.Alarms {
		switch a.GetAlarm() {
		case etcdserverpb.AlarmType_NOSPACE:
			out = append(out, fmt.Sprintf("etcd member %x has no space left and takes no change but deletions: its operator has to compact and defragment it, then disarm the alarm (etcdctl compact, defrag, alarm disarm)", a.GetMemberID()))
		case etcdserverpb.AlarmType_CORRUPT:
			out = append(out, fmt.Sprintf("etcd member %x holds other data than the rest of its cluster (CORRUPT): its operator has to replace it", a.GetMemberID()))
		case etcdserverpb.AlarmType_NONE:
		}
	}
	return out, nil
}
