package azure

import "strings"

// geographies are Azure's regions by the geography that they are in
// (learn.microsoft.com/azure/reliability/regions-list). All regions of a geography
// share one security world, except those of the US Department of Defense
// (learn.microsoft.com/azure/key-vault/general/overview-security-worlds).
var geographies = map[string]string{
	"Asia Pacific":   "eastasia southeastasia",
	"Australia":      "australiacentral australiacentral2 australiaeast australiasoutheast",
	"Brazil":         "brazilsouth brazilsoutheast",
	"Canada":         "canadacentral canadaeast",
	"China":          "chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3",
	"Europe":         "northeurope westeurope",
	"France":         "francecentral francesouth",
	"Germany":        "germanynorth germanywestcentral",
	"India":          "centralindia southindia westindia",
	"Japan":          "japaneast japanwest",
	"Korea":          "koreacentral koreasouth",
	"Norway":         "norwayeast norwaywest",
	"South Africa":   "southafricanorth southafricawest",
	"Sweden":         "swedencentral swedensouth",
	"Switzerland":    "switzerlandnorth switzerlandwest",
	"UAE":            "uaecentral uaenorth",
	"United Kingdom": "uksouth ukwest",
	"United States":  "centralus eastus eastus2 northcentralus southcentralus westcentralus westus westus2 westus3",
	"US Government":  "usgovarizona usgoviowa usgovtexas usgovvirginia",
}

// GeographyOf returns the geography of a region. A region that is not in the
// table is a geography of its own.
func GeographyOf(region string) string {
	for geography, regions := range geographies {
		for name := range strings.FieldsSeq(regions) {
			if name == region {
				return geography
			}
		}
	}
	return region
}
