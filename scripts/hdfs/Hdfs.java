// HDFS with one name node and one data node, until standard input ends. Started by scripts/hdfs.sh.

import java.io.File;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

public class Hdfs {
    public static void main(String[] words) throws Exception {
        File folder = new File(words[0]);
        Configuration configuration = new Configuration();
        configuration.set(MiniDFSCluster.HDFS_MINIDFS_BASEDIR, folder.getPath());
        // What it writes is as durable as the machine is: no data node waits for its disk.
        configuration.setBoolean("dfs.namenode.edits.noeditlogchannelflush", true);
        configuration.set("dfs.permissions.superusergroup", "root");
        configuration.setBoolean("dfs.permissions.enabled", false);
        MiniDFSCluster cluster = new MiniDFSCluster.Builder(configuration)
            .nameNodePort(Integer.parseInt(words[1]))
            .numDataNodes(1)
            .format(!new File(folder, "name-0-1").exists())
            .build();
        cluster.waitActive();
        System.out.println("ready");
        while (System.in.read() >= 0) {
        }
        System.exit(0);
    }
}
