// Asks a webhook for permission to import friends with open-im-server 3.8.3's own client and types, as its ImportFriends does, and prints
// as JSON what OpenIM would conclude.
//
// Usage: imports URL TIMEOUT_SECONDS OPERATION_ID OWNER [FRIEND…]
package main

import (
	"context"
	"encoding/json"
	"os"
	"strconv"

	"github.com/openimsdk/open-im-server/v3/pkg/callbackstruct"
	"github.com/openimsdk/open-im-server/v3/pkg/common/config"
	"github.com/openimsdk/open-im-server/v3/pkg/common/webhook"
	"github.com/openimsdk/protocol/constant"
	"github.com/openimsdk/tools/errs"
	"github.com/openimsdk/tools/log"
)

// What OpenIM would do.
type conclusion struct {
	// The friends it would import, if it would.
	Imports []string `json:"imports,omitempty"`
	// The error its API would return.
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

func main() {
	url, owner, friends := os.Args[1], os.Args[4], os.Args[5:]
	timeout, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	// OpenIM's client logs, and its logger must exist; standard output is for the conclusion.
	if err := log.InitLoggerFromConfig("imports", "imports", "", "", 0, false, false, os.TempDir(), 1, 24, "", false); err != nil {
		panic(err)
	}
	ctx := context.WithValue(context.Background(), constant.OperationID, os.Args[3])
	for _, key := range []string{constant.OpUserID, constant.OpUserPlatform, constant.ConnID} {
		ctx = context.WithValue(ctx, key, "imports")
	}
	request := &callbackstruct.CallbackBeforeImportFriendsReq{
		CallbackCommand: callbackstruct.CallbackBeforeImportFriendsCommand,
		OwnerUserID:     owner,
		FriendUserIDs:   friends,
	}
	response := &callbackstruct.CallbackBeforeImportFriendsResp{}
	client := webhook.NewWebhookClient(url)
	before := &config.BeforeConfig{Enable: true, Timeout: timeout}
	concluded := conclusion{Imports: friends}
	if err := client.SyncPost(ctx, request.GetCallbackCommand(), request, response, before); err != nil {
		concluded = conclusion{Code: -1, Message: err.Error()}
		if coded, ok := errs.Unwrap(err).(errs.CodeError); ok {
			concluded = conclusion{Code: coded.Code(), Message: coded.Msg(), Detail: coded.Detail()}
		}
	} else if len(response.FriendUserIDs) != 0 {
		concluded.Imports = response.FriendUserIDs
	}
	if err := json.NewEncoder(os.Stdout).Encode(concluded); err != nil {
		panic(err)
	}
}
