package nodetest

import (
	"bytes"

	"keyroll/api"
)

// WorkPolicy is the multi-workload policy that StageWork makes.
const WorkPolicy = "All_workloads"

// Vaults of WorkPolicy; each has one key, named like the vault with Key001.
const (
	VaultW1 = "Contoso-DAR-VaultW1"
	VaultW2 = "Contoso-DAR-VaultW2"
)

const dataAtRestEncryption = "c066d759-24ae-40e7-a56f-027002b5d3e4"

// StageWork makes two vaults with a key each for WorkPolicy, and the policy.
func (w *World) StageWork() {
	w.t.Helper()
	w.Vault(VaultW1, dataAtRestEncryption)
	w.Vault(VaultW2, dataAtRestEncryption)
	var in api.CreatePolicyInput
	in.Body.Kind, in.Body.Name, in.Body.Keys = api.MultiWorkloadPolicy, WorkPolicy, []string{w.KeyURI(VaultW1), w.KeyURI(VaultW2)}
	w.must(ignore(w.Client.CreatePolicy(w.t.Context(), in)))
}

// AssignTenant assigns a multi-workload policy to the tenant; the roll has begun.
func (w *World) AssignTenant(policy string) {
	w.t.Helper()
	var in api.AssignPolicyInput
	in.Body.Policy = policy
	w.must(ignore(w.Client.AssignPolicy(w.t.Context(), in)))
}

// Leave leaves a policy; the roll has begun.
func (w *World) Leave(policy string) {
	w.t.Helper()
	w.must(ignore(w.Client.LeavePolicy(w.t.Context(), api.LeavePolicyInput{PolicyInput: api.PolicyInput{Policy: policy}})))
}

func itemOf(store, name string) api.WorkloadItemInput {
	return api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: store}, Item: name}
}

// PutItem stores an item of a workload store.
func (w *World) PutItem(store, name string, content []byte) {
	w.t.Helper()
	w.must(ignore(w.Client.PutWorkloadItem(w.t.Context(), itemOf(store, name), int64(len(content)), bytes.NewReader(content))))
}

// GetItem returns an item of a workload store.
func (w *World) GetItem(store, name string) []byte {
	w.t.Helper()
	return []byte(w.all(w.Client.GetWorkloadItem(w.t.Context(), itemOf(store, name))))
}
