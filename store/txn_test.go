package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/store"
)

// The architecture's table of keys: every key function, with the only writers it has.
func TestOneWriterAKey(t *testing.T) {
	t.Parallel()
	svc := cluster.ServiceID{App: "shop", Name: "web"}
	all := []store.Writer{
		store.WriterAPI, store.WriterAgent, store.WriterGateway, store.WriterRollout, store.WriterHooks, store.WriterScheduler,
		store.WriterRegistry, store.WriterProxyconf, store.WriterAutoscaler, store.WriterBroker, store.WriterServer, store.WriterDelivery,
	}
	for key, writers := range map[string][]store.Writer{
		store.NodeSpecKey("n1"):                                     {store.WriterAPI},
		store.NodeInfoKey("n1"):                                     {store.WriterAPI, store.WriterAgent},
		store.AliveKey("n1"):                                        {store.WriterAPI, store.WriterAgent},
		store.AppKey("shop"):                                        {store.WriterAPI},
		store.ServiceKey(svc):                                       {store.WriterAPI},
		store.ScaleKey(svc):                                         {store.WriterAPI, store.WriterAutoscaler},
		store.ReleaseKey("shop", 3):                                 {store.WriterAPI},
		store.OutcomeKey("shop", 3):                                 {store.WriterRollout},
		store.ConfigKey("shop", "nginx", "abc"):                     {store.WriterAPI},
		store.SecretKey(cluster.SecretRef{App: "shop", Name: "db"}): {store.WriterAPI},
		store.RolloutKey(svc):                                       {store.WriterRollout},
		store.TaskKey("shop", "shop_web.1.x"):                       {store.WriterRollout, store.WriterHooks},
		store.PlacementKey("n1", "shop_web.1.x"):                    {store.WriterScheduler},
		store.SealedKey("n1", "shop_web.1.x"):                       {store.WriterBroker},
		store.StatusKey("n1", "shop_web.1.x"):                       {store.WriterAPI, store.WriterAgent},
		store.AgentAckKey("n1"):                                     {store.WriterAPI, store.WriterAgent},
		store.GatewayAckKey("n1"):                                   {store.WriterAPI, store.WriterGateway},
		store.EndpointsKey(svc):                                     {store.WriterRegistry},
		store.DemandKey(svc):                                        {store.WriterAutoscaler},
		store.NodeNetKey("n1"):                                      {store.WriterRegistry},
		store.AddressKey(svc):                                       {store.WriterRegistry},
		store.DecisionKey("scheduler", "shop/web.1"):                {store.WriterScheduler},
		store.DecisionKey("rollout", "shop/web"):                    {store.WriterRollout},
		store.DecisionKey("autoscaler", "shop/web"):                 {store.WriterAutoscaler},
		store.LockKey("leader"):                                     {store.WriterServer},
		store.DeliveryKey("shop"):                                   {store.WriterAPI},
		store.DeliveryAskKey("shop"):                                {store.WriterAPI},
		store.DeliveryStateKey("shop"):                              {store.WriterDelivery},
		store.TurnKey("scheduler"):                                  {store.WriterScheduler},
		store.PackageKey("shop", "t", 0):                            {store.WriterAPI},
		store.UserListKey("shop", "u"):                              {store.WriterAPI},
		store.NodeLostKey("n1"):                                     {store.WriterAPI},
		store.NodeRemovedKey("n1"):                                  {store.WriterAPI},
		store.ChangeKey("shop"):                                     {store.WriterAPI},
		store.ChangeRecordKey("shop"):                               {store.WriterHooks},
		store.ClaimsKey:                                             {store.WriterAPI},
		store.FollowsKey:                                            {store.WriterAPI},
		store.GatewayFileKey("n2", cluster.GatewayCert, "", "c"):    {store.WriterBroker},
		store.ServerSpecKey("n1"):                                   {store.WriterAPI},
		store.ServerInfoKey("n1"):                                   {store.WriterAPI, store.WriterServer},
		store.TokenKey("h"):                                         {store.WriterAPI},
		store.DecisionKey("broker", "shop/web.1"):                   {store.WriterBroker},
		store.DecisionKey("registry", "shop/web"):                   {store.WriterRegistry},
		store.DecisionKey("proxyconf", "shop/web"):                  {store.WriterProxyconf},
		store.CertKey("shop"):                                       {store.WriterAPI},
		store.RegistryCredentialKey("ghcr.io"):                      {store.WriterAPI},
		store.PrefixCluster + "id":                                  {store.WriterServer},
		store.TraefikRoot:                                           {store.WriterProxyconf},
		store.TraefikRoot + "/http/routers/a/rule":                  {store.WriterProxyconf},
		store.Root + "unknown":                                      nil,
		"traefikish":                                                nil,
		store.NodeInfoKey("n1") + "/more":                           nil,
		"fairlead/v2/" + strings.Repeat("x", 3):                     nil,
	} {
		var got []store.Writer
		for _, w := range all {
			st := store.NewMemory()
			_, err := store.Guarded(st, w).Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte("x")}}})
			switch {
			case err == nil:
				got = append(got, w)
			case cluster.KindOf(err) != cluster.KindForbidden:
				t.Errorf("%s writes %s: error %v, want one of kind forbidden", w, key, err)
			}
			if _, err := st.Get(t.Context(), key); (err == nil) != store.MayWrite(w, key) {
				t.Errorf("%s wrote %s: %v", w, key, err == nil)
			}
		}
		if d := cmp.Diff(writers, got); d != "" {
			t.Errorf("writers of %s: %s", key, d)
		}
	}
}

func TestGuardedRefusesTheWholeTransaction(t *testing.T) {
	t.Parallel()
	st := store.NewMemory()
	_, err := store.Guarded(st, store.WriterScheduler).Commit(t.Context(), store.Txn{Then: []store.Op{
		{Key: store.PlacementKey("n1", "a"), Value: []byte("x")},
		{Key: store.TaskKey("shop", "a"), Delete: true},
	}})
	if cluster.KindOf(err) != cluster.KindForbidden || !strings.Contains(err.Error(), "tasks/shop/a") {
		t.Errorf("error %v, want one of kind forbidden that names the key", err)
	}
	if entries, _, _ := st.List(t.Context(), ""); len(entries) > 0 {
		t.Errorf("wrote %v", entries)
	}
}

func TestMemoryDown(t *testing.T) {
	t.Parallel()
	st := store.NewMemory()
	ch := st.Watch(t.Context(), "", 1)
	st.Down(true)
	b := <-ch
	if _, open := <-ch; open || cluster.KindOf(b.Err) != cluster.KindTransient {
		t.Errorf("watch of a store that is down: %v, open %v", b.Err, open)
	}
	if _, _, err := st.List(t.Context(), ""); cluster.KindOf(err) != cluster.KindTransient {
		t.Errorf("list: %v", err)
	}
	st.Down(false)
	if _, err := st.Get(t.Context(), "a"); errors.Is(err, b.Err) || cluster.KindOf(err) != cluster.KindNotFound {
		t.Errorf("get: %v", err)
	}
}
